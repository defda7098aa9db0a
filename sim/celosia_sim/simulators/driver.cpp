// The compiled loop around the verilated core: bus writes, bus reads and runs, a call each.
// Compiled once for each core and called through ctypes (verilated.py), from where it has MAIN, the
// number of main memory on the bus, and ENTRY_WORDS, the elements of its words.
//
// One cycle is one rising edge of clk. Inputs are set before the edge that samples them; outputs
// are looked at after it.

#include <cstdint>
#include <memory>

#include "Vcore.h"
#include "pins.h"
#include "verilated.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Machine {
    std::unique_ptr<VerilatedContext> context{new VerilatedContext};
    std::unique_ptr<Vcore> core{new Vcore{context.get()}};
    FlashPins flash;
    int64_t edges = 0;

    void edge() {
        flash.before(*core, 0);
        core->clk = 1;
        core->eval();
        flash.after(*core, 0);
        core->clk = 0;
        core->eval();
        ++edges;
    }

    // Set the space of accesses, a cycle before the first one.
    void space(uint32_t number) {
        if (core->mem_space == number) return;
        core->mem_space = number;
        edge();
    }
};

// Whether a core still checks its flash, as it does from power-up on.
template <class Core>
auto checking(const Core& core, int) -> decltype(static_cast<int>(core.checking)) {
    return core.checking;
}

template <class Core>
int checking(const Core&, long) {
    return 0;
}

struct Outcome {
    int64_t cycles;
    int32_t finished, saturated, error;
};

}  // namespace

// Return a machine some cycles after power-up; chip : its flash, if it has one.
EXPORT void* celosia_open(int64_t cycles, const FlashChip* chip) {
    auto* machine = new Machine;
    machine->flash.attach(chip);
    auto& core = *machine->core;
    core.clk = 0;
    core.mem_write = core.mem_read = core.start = 0;
    core.__SYM__abort = 0;  // Verilator's name for the port `abort`, a word of C
    core.eval();
    for (int64_t i = 0; i < cycles; ++i) machine->edge();
    return machine;
}

// Let at most `cycles` cycles pass while the machine reads its flash; return whether it still does.
EXPORT int32_t celosia_boot(void* handle, int64_t cycles) {
    auto* machine = static_cast<Machine*>(handle);
    for (; checking(*machine->core, 0) && cycles > 0; --cycles) machine->edge();
    return checking(*machine->core, 0);
}

EXPORT void celosia_close(void* handle) {
    auto* machine = static_cast<Machine*>(handle);
    machine->core->final();
    delete machine;
}

// Return the number of clock edges since celosia_open.
EXPORT int64_t celosia_edges(void* handle) { return static_cast<Machine*>(handle)->edges; }

// Write values[i] to address at[2 * i + 1] of space at[2 * i], one in two cycles, then wait until
// the last one has taken effect: `settle` cycles.
EXPORT void celosia_write(void* handle, int64_t count, const uint32_t* at, const uint32_t* values,
                          int64_t settle) {
    auto* machine = static_cast<Machine*>(handle);
    auto& core = *machine->core;
    for (int64_t i = 0; i < count; ++i) {
        machine->space(at[2 * i]);
        core.mem_write = 1;
        core.mem_address = at[2 * i + 1];
        core.mem_wdata = values[i];
        machine->edge();
        core.mem_write = 0;
        core.eval();
        machine->edge();
    }
    for (int64_t i = 0; i < settle; ++i) machine->edge();
}

// Read likewise. Return how many reads were answered within `latency` cycles: fewer than `count`
// if one was not.
EXPORT int64_t celosia_read(void* handle, int64_t count, const uint32_t* at, uint32_t* values,
                            int64_t latency) {
    auto* machine = static_cast<Machine*>(handle);
    auto& core = *machine->core;
    for (int64_t i = 0; i < count; ++i) {
        machine->space(at[2 * i]);
        const uint32_t last = at[2 * i + 1];
        // Elements of a word of main memory are read in their order: the machine takes it apart.
        const uint32_t first = core.mem_space == MAIN ? last - last % ENTRY_WORDS : last;
        for (uint32_t address = first; address <= last; ++address) {
            core.mem_address = address;
            core.mem_read = 1;
            machine->edge();
            core.mem_read = 0;
            core.eval();
            for (int64_t waited = 0; !core.mem_rvalid; ++waited) {
                if (waited == latency) return i;
                machine->edge();
            }
        }
        values[i] = core.mem_rdata;
    }
    return count;
}

// Start the list of chunks that begins in word `at` of main memory.
EXPORT void celosia_start(void* handle, int32_t at) {
    auto* machine = static_cast<Machine*>(handle);
    auto& core = *machine->core;
    core.start_list = at;
    core.start = 1;
    machine->edge();
    core.start = 0;
    core.eval();
}

// Let at most `cycles` cycles pass, until the end: done, or an error code while not busy.
// Cycles are added to the outcome's.
EXPORT void celosia_run(void* handle, int64_t cycles, Outcome* outcome) {
    auto* machine = static_cast<Machine*>(handle);
    auto& core = *machine->core;
    const auto ended = [&core] { return core.done || (core.error && !core.busy); };
    for (; !ended() && cycles > 0; --cycles) {
        machine->edge();
        ++outcome->cycles;
    }
    outcome->finished = ended();
    outcome->saturated = core.saturated;
    outcome->error = core.error;
    if (outcome->finished) machine->edge();
}
