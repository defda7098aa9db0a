// One verilated block, a cycle at a time: compiled once for each block, called through ctypes
// (verilated_block.py). `ports.h`, which is written with it, names the ports.
//
// A port is the bytes that Verilator keeps it in, lowest first.

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vblock.h"
#include "Vblock__ALL.cpp"
#include "ports.h"  // PORTS(P): P(member) for each port; CLOCKED where there is a clock
#include "verilated.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Block {
    std::unique_ptr<VerilatedContext> context{new VerilatedContext};
    std::unique_ptr<Vblock> model;

    Block() {
        context->randReset(2);  // what nobody gave a value to starts at random
        context->randSeed(1);
        model.reset(new Vblock{context.get()});
    }
};

}  // namespace

// Return a block whose inputs are whatever they happen to be.
EXPORT void* celosia_block_open() { return new Block; }

EXPORT void celosia_block_close(void* handle) {
    auto* block = static_cast<Block*>(handle);
    block->model->final();
    delete block;
}

// Return where port `index` of PORTS is, and in `bytes` how large; null where there is none.
EXPORT void* celosia_block_port(void* handle, int32_t index, int32_t* bytes) {
    auto& model = *static_cast<Block*>(handle)->model;
    int32_t at = 0;
#define FIND(member)                                       \
    if (at++ == index) {                                   \
        *bytes = static_cast<int32_t>(sizeof(model.member)); \
        return &model.member;                              \
    }
    PORTS(FIND)
#undef FIND
    return nullptr;
}

// Let the outputs follow the inputs.
EXPORT void celosia_block_settle(void* handle) { static_cast<Block*>(handle)->model->eval(); }

// Let `cycles` clock cycles pass; nothing happens in a block without a clock.
EXPORT void celosia_block_tick(void* handle, int64_t cycles) {
#ifdef CLOCKED
    auto& model = *static_cast<Block*>(handle)->model;
    for (int64_t i = 0; i < cycles; ++i) {
        model.clk = 1;
        model.eval();
        model.clk = 0;
        model.eval();
    }
#endif
}

// Let `cycles` cycles pass, each with inputs of its own: `in` and `out` have a row of `cycles` values
// for each port, whose indices stand in `inputs` and `outputs`. Outputs are those before the edge.
EXPORT void celosia_block_stream(void* handle, int64_t cycles, int32_t reads, const int32_t* inputs,
                                 const uint64_t* in, int32_t writes, const int32_t* outputs,
                                 uint64_t* out) {
    for (int64_t i = 0; i < cycles; ++i) {
        for (int32_t k = 0; k < reads + writes; ++k) {
            if (k == reads) celosia_block_settle(handle);
            const bool read = k < reads;
            const int32_t at = read ? k : k - reads;
            int32_t bytes = 0;
            void* place = celosia_block_port(handle, read ? inputs[at] : outputs[at], &bytes);
            if (read) {
                std::memcpy(place, in + at * cycles + i, bytes);
            } else {
                std::memcpy(out + at * cycles + i, place, bytes);
            }
        }
        celosia_block_tick(handle, 1);
    }
}
