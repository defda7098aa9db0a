// Bytes straight into and out of the verilated host port, without a serial line: a byte is there
// when the port takes it, and its answer is taken at once.
//
// While a program runs, bytes come no faster than on the line, where hosts fill the time of a run
// with padding: what follows the padding is meant for the time after the run.

#include "port.h"

namespace {

struct Board {
    Board(const Core& core, int64_t byte_cycles, bool plain)
        : machine{core, plain}, byte_cycles{byte_cycles} {}
    Machine machine;
    const int64_t byte_cycles;  // of a byte on the line
    int64_t next = 0;           // cycle from which a byte may come while a program runs

    void run(Call* call) {
        auto& top = *machine.port.top;
        call->in_taken = call->out_count = 0;
        for (int64_t edges = 0; edges < call->edges && machine.cycles < call->until; ++edges) {
            offer(call);
            if (quiet()) {
                if (call->stop_when_quiet) break;
                machine.skip(call->until - machine.cycles);
                break;
            }
            const bool taken = top.i___05Fvalid && top.i___05Fready, came = top.o___05Fvalid;
            const uint8_t byte = top.o___05Fpayload;
            machine.edge();
            if (taken) {
                ++call->in_taken;
                next = machine.cycles + byte_cycles;
            }
            if (came) {
                call->out[call->out_count++] = byte;
                if (call->out_count == call->out_room) break;
            }
        }
        offer(call);
        call->quiet = quiet();
        call->damaged = 0;
        machine.report(call);
    }

    // Show the port the next byte; none is shown twice, nor taken without being counted.
    void offer(const Call* call) {
        auto& top = *machine.port.top;
        const bool more = call->in_taken < call->in_count &&
                          (!machine.state.busy || machine.cycles >= next);
        const uint8_t byte = more ? call->in[call->in_taken] : 0;
        if (top.i___05Fvalid == more && top.i___05Fpayload == byte) return;
        top.i___05Fvalid = more;
        top.i___05Fpayload = byte;
        machine.touched();
    }

    // A busy machine never stands still, so nothing is held back then.
    bool quiet() const { return !machine.port.top->i___05Fvalid && machine.stands_still(); }
};

}  // namespace

// Return a board out of reset. bit : of the line that is not there, in cycles, FRACTION bits behind
// the point.
EXPORT void* celosia_board_open(const Core* core, int64_t bit, int64_t reset_cycles,
                                int32_t plain) {
    auto* board = new Board{*core, LINE_BITS * bit >> FRACTION, plain != 0};
    auto& top = *board->machine.port.top;
    top.i___05Fvalid = top.i___05Fpayload = 0;
    top.o___05Fready = 1;
    board->machine.open(reset_cycles);
    return board;
}

EXPORT void celosia_board_run(void* handle, Call* call) { static_cast<Board*>(handle)->run(call); }

EXPORT void celosia_board_close(void* handle) { delete static_cast<Board*>(handle); }
