// The verilated host port and the core behind it, a clock edge at a time, and how a call lets
// many edges pass. What is at the port's other side (a serial line, or bytes) is for the includer.
//
// An edge of a model that is known to stand still is left out. It is known by trial: when a model
// has seen the same inputs for a while, its whole state is compared before and after an edge. Where
// nothing has changed, nothing will, until an input does. The core may count in circles meanwhile:
// where a few edges have changed nothing in all, as many more will not; only what is left of a
// round is made up for before an input changes.

#pragma once

#include "bus.h"

namespace {

// When to try whether a model stands still: first after `first` edges with the same inputs, then
// after twice as many each time, up to so many that a trial hardly counts.
class Stillness {
  public:
    explicit Stillness(int64_t first) : first{first}, next{first} {}
    void moved() {
        same = 0;
        next = first;
        still = false;
    }
    bool try_now() { return ++same >= next; }
    void tried(bool unchanged) {
        still = unchanged;
        next = same + (same < FAR ? same : FAR);
    }
    bool still = false;

  private:
    static constexpr int64_t FAR = 4096;
    int64_t first, next, same = 0;
};

// FRACTION, bits behind the point of a time in cycles, and LINE_BITS, of a byte, are design.py's.
constexpr int64_t CORE_TRIAL = 16, PORT_TRIAL = 8;
constexpr int64_t ROUND = 128;  // edges of the longest circle that is looked for

// One call from board.py: how far to go, the bytes for the machine, and what came of it.
struct Call {
    const uint8_t* in;
    uint8_t* out;
    int64_t in_count, out_room;  // bytes there are, and room for bytes
    int64_t until;               // go on to this cycle,
    int64_t edges;               // or so many edges, whichever is first,
    int32_t stop_when_quiet;     // or until nothing can change any more
    int32_t quiet;
    int64_t in_taken, out_count, cycles, starts, simulated, damaged;
    int32_t busy, error, saturated, was_busy, was_error, was_saturated;
};

struct Machine {
    Machine(const Core& core, bool plain) : core{core}, plain{plain} {}

    Model port;
    Core core;
    const bool plain;  // never leave out an edge
    State state{};
    int64_t cycles = 0, starts = 0, simulated = 0;
    uint8_t was_busy = 0, was_error = 0, was_saturated = 0;

    void open(int64_t reset_cycles) {
        take_state();
        port.reset(reset_cycles);
        read_bus();
        settled = bus;
    }

    // Nothing changes any more until an input of the port does.
    bool stands_still() const { return core_rest.still && port_rest.still; }

    // The includer has changed an input of the port.
    void touched() {
        port.settle();
        read_bus();
        port_rest.moved();
    }

    // Let a clock edge pass.
    void edge() {
        const State before = state;
        starts += bus.start;
        if (!(bus == settled)) core_moved();
        if (core_rest.still) ++left_out;
        else core_edge();
        settled = bus;
        if (!(state == before)) core_moved();
        if (!port_rest.still || !(state == before)) port_edge(state == before);
        was_busy |= state.busy;
        was_error |= state.error != 0;
        was_saturated |= state.saturated;
        ++cycles;
    }

    // Let `count` edges pass at once; only while it stands still.
    void skip(int64_t count) {
        cycles += count;
        left_out += count;
    }

    // What a call brings back, apart from the bytes.
    void report(Call* call) {
        call->cycles = cycles;
        call->starts = starts;
        call->simulated = simulated;
        call->busy = state.busy;
        call->error = state.error;
        call->saturated = state.saturated;
        call->was_busy |= was_busy;
        call->was_error |= was_error;
        call->was_saturated |= was_saturated;
        was_busy = was_error = was_saturated = 0;
    }

  private:
    Bus bus{}, settled{};  // what the port drives; what the core saw at the edge before
    Stillness core_rest{CORE_TRIAL}, port_rest{PORT_TRIAL};

    int64_t trial = 0, round = 1, left_out = 0;  // edges: of a trial, of a circle, not done

    void core_edge() {
        ++simulated;
        const bool now = core_rest.try_now() && !state.busy && !plain;
        if (!trial && !now) return core.edge(core.handle, &bus, &state);
        const bool same = core.again(core.handle, &bus, &state, !trial);
        ++trial;
        if (!same && trial < ROUND) return;
        core_rest.tried(same);
        round = trial;
        trial = left_out = 0;
    }

    // An input or an output of the core changes.
    void core_moved() {
        if (core_rest.still) {
            State unchanged;
            for (left_out %= round; left_out; --left_out)
                core.edge(core.handle, &settled, &unchanged);
        }
        core_rest.moved();
        trial = 0;
    }

    void port_edge(bool same_inputs) {
        if (!same_inputs) port_rest.moved();
        const bool trial = port_rest.try_now() && !plain;
        if (trial) port.remember();
        port.edge();
        if (!same_inputs) {
            take_state();
            port.settle();
        }
        read_bus();
        if (trial) port_rest.tried(port.unchanged());
    }

    void take_state() {
        auto& top = *port.top;
        top.mem_rdata = state.rdata;
        top.mem_rvalid = state.rvalid;
        top.busy = state.busy;
        top.error = state.error;
        top.saturated = state.saturated;
    }

    void read_bus() {
        const auto& top = *port.top;
        bus.space = top.mem_space;
        bus.address = top.mem_address;
        bus.write = top.mem_write;
        bus.wdata = top.mem_wdata;
        bus.read = top.mem_read;
        bus.start = top.start;
        bus.list = top.start_list;
        bus.abort = top.__SYM__abort;
        bus.keep = top.mem_keep | top.mem_kept << 1;
    }
};

}  // namespace
