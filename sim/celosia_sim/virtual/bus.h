// What passes between the host port and the core at a clock edge: the host bus of
// celosia_hw/host_port.py. Both sides are verilated models in libraries of their own.

#pragma once

#include <cstdint>
#include <cstdlib>
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
    uint8_t space, write, read, start, first, last, abort, unused;
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
// leaves the state after it; `steady` does the same and tells whether nothing at all has changed.
struct Core {
    void* handle;
    void (*edge)(void* handle, const Bus* bus, State* state);
    int32_t (*steady)(void* handle, const Bus* bus, State* state);
};

// A verilated model, held in reset for some edges, then clocked one edge a call.
class Model {
  public:
    Model() : top{new Vcore{context.get()}}, before{std::malloc(sizeof(Vcore__Syms))} {}
    ~Model() {
        top->final();
        std::free(before);
    }

    void reset(int64_t cycles) {
        top->clk = 0;
        top->rst = 1;
        top->eval();
        for (int64_t i = 0; i < cycles; ++i) {
            rise();
            fall();
        }
        top->rst = 0;
        top->eval();
    }

    void rise() {
        top->clk = 1;
        top->eval();
    }
    void fall() {
        top->clk = 0;
        top->eval();
    }

    // The whole state of a model lies in its Syms: a model that an edge leaves as it was, bit for
    // bit, will be left so by every further edge, for as long as its inputs stay.
    void remember() { std::memcpy(before, top->rootp->vlSymsp, sizeof(Vcore__Syms)); }
    bool unchanged() const {
        return !std::memcmp(before, top->rootp->vlSymsp, sizeof(Vcore__Syms));
    }

  private:
    std::unique_ptr<VerilatedContext> context{new VerilatedContext};

  public:
    std::unique_ptr<Vcore> top;

  private:
    void* before;
};
