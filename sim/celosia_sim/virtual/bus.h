// What passes between the host port and the core at a clock edge: the host bus of
// celosia_hw/host/bit_port.py. Both sides are verilated models in libraries of their own.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "Vcore.h"
#include "Vcore___024root.h"
#include "Vcore__Syms.h"
#include "verilated.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// From the host port. Words first: no padding between members.
struct Bus {
    uint32_t address, wdata;
    uint16_t list;
    uint8_t space, write, read, start, abort, keep;
    bool operator==(const Bus& other) const { return !std::memcmp(this, &other, sizeof(Bus)); }
};

// From the core; all of it comes out of registers.
struct State {
    uint32_t rdata;
    uint8_t rvalid, busy, error, saturated;
    bool operator==(const State& other) const {
        return !std::memcmp(this, &other, sizeof(State));
    }
};

// The core's library, as the port's library calls it. `edge` takes the bus before a clock edge and
// leaves the state after it; `again` does the same and tells whether all is as it was before the
// edge of the last call with `begin`.
struct Core {
    void* handle;
    void (*edge)(void* handle, const Bus* bus, State* state);
    int32_t (*again)(void* handle, const Bus* bus, State* state, int32_t begin);
};

// Hold a model in reset, or let it go; nothing of one that has no reset.
template <class Top>
auto set_reset(Top& top, int value, int) -> decltype(static_cast<void>(top.rst)) {
    top.rst = value;
}

template <class Top>
void set_reset(Top&, int, long) {}

// A verilated model, held in reset for some edges, then clocked one edge a call: its Verilog takes
// every change of `clk` for an edge (design.py), so that an edge is one evaluation.
class Model {
  public:
    ~Model() { top->final(); }

    void reset(int64_t cycles) {
        set_reset(*top, 1, 0);
        for (int64_t i = 0; i < cycles; ++i) edge();
        set_reset(*top, 0, 0);
        settle();
    }

    void edge() {
        top->clk = !top->clk;
        top->eval();
    }

    // Let the outputs follow the inputs.
    void settle() { top->eval(); }

    // The whole state of a model lies in its Syms: a model that some edges leave as it was, bit for
    // bit, will be left so by as many further edges, for as long as its inputs stay. Two bytes
    // follow the clock and are not looked at: `clk`, and the one in which Verilator keeps what it
    // was. `unchanged` is called behind every edge since `remember`.
    void remember() { std::memcpy(before.get(), state(), BYTES); }
    bool unchanged() {
        follow(&top->clk - state());
        if (previous) follow(previous);
        if (same()) return true;
        if (previous) return false;
        const auto* first = std::mismatch(state(), state() + BYTES, before.get()).first;
        const size_t at = first - state();
        const uint8_t was = before[at];
        if (!follow(at) || !same()) {
            before[at] = was;
            return false;
        }
        previous = at;
        return true;
    }

  private:
    std::unique_ptr<VerilatedContext> context{new VerilatedContext};

  public:
    std::unique_ptr<Vcore> top{new Vcore{context.get()}};

  private:
    static constexpr size_t BYTES = sizeof(Vcore__Syms);
    std::unique_ptr<uint8_t[]> before{new uint8_t[BYTES]};
    size_t previous = 0;  // where the second of those bytes is, once it is known

    const uint8_t* state() const {
        return reinterpret_cast<const uint8_t*>(top->rootp->vlSymsp);
    }
    bool same() const { return !std::memcmp(before.get(), state(), BYTES); }
    // Whether a byte has changed as the clock did; then it counts as unchanged.
    bool follow(size_t at) {
        const bool follows = before[at] == !top->clk && state()[at] == top->clk;
        if (follows) before[at] = top->clk;
        return follows;
    }
};
