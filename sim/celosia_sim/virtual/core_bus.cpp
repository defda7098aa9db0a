// The verilated core, one clock edge a call. Called from port.h, through pointers.

#include "bus.h"
#include "pins.h"

namespace {

// A core, and its flash, if it has one.
struct Machine : Model {
    FlashPins flash;
};

void take(Vcore& core, const Bus& bus) {
    core.mem_space = bus.space;
    core.mem_address = bus.address;
    core.mem_write = bus.write;
    core.mem_wdata = bus.wdata;
    core.mem_read = bus.read;
    core.start = bus.start;
    core.start_list = bus.list;
    core.__SYM__abort = bus.abort;  // Verilator's name for the port `abort`, a word of C
    core.mem_keep = bus.keep & 1;
    core.mem_kept = bus.keep >> 1;
}

void tell(const Vcore& core, State* state) {
    state->rdata = core.mem_rdata;
    state->rvalid = core.mem_rvalid;
    state->busy = core.busy;
    state->error = core.error;
    state->saturated = core.saturated;
}

}  // namespace

EXPORT void celosia_core_edge(void* handle, const Bus* bus, State* state) {
    auto* model = static_cast<Machine*>(handle);
    take(*model->top, *bus);
    model->flash.before(*model->top, 0);
    model->edge();
    model->flash.after(*model->top, 0);
    tell(*model->top, state);
}

EXPORT int32_t celosia_core_again(void* handle, const Bus* bus, State* state, int32_t begin) {
    auto* model = static_cast<Machine*>(handle);
    if (begin) model->remember();
    celosia_core_edge(handle, bus, state);
    return model->unchanged() && model->flash.still();
}

// Return a core that was held in reset for `cycles`, with an idle bus; chip : its flash, if it has
// one.
EXPORT void* celosia_core_open(int64_t cycles, const FlashChip* chip) {
    auto* model = new Machine;
    model->flash.attach(chip);
    take(*model->top, Bus{});
    model->reset(cycles);
    return model;
}

EXPORT void celosia_core_close(void* handle) { delete static_cast<Machine*>(handle); }
