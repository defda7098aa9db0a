// A serial line between the host and the verilated serial port: 8 data bits, no parity, 1 stop bit.
//
// This is the host's end, and shares nothing with the gateware's. It keeps a clock of its own: a
// bit lasts `bit` cycles of the machine, not a whole number of them, and edges fall where that says.
// Times are in cycles, with FRACTION bits behind the point.

#include "port.h"

namespace {

// First whole cycle at or after `time`.
int64_t cycle_of(int64_t time) { return (time + (int64_t{1} << FRACTION) - 1) >> FRACTION; }

struct Sender {
    int64_t bit, begin = 0, next = 0;  // `begin` of the byte, and cycle of the next change
    int32_t frame = 0, at = LINE_BITS;
    bool busy = false;

    void start(uint8_t byte, int64_t now) {
        const int64_t free = begin + LINE_BITS * bit, here = now << FRACTION;
        begin = begun && free > here - (int64_t{1} << FRACTION) ? free : here;
        begun = busy = true;
        frame = byte << 1 | 1 << 9;
        at = 0;
        next = cycle_of(begin);
    }

    // Whether a new bit begins at `now`; after the last one the sender is not busy.
    bool step(int64_t now) {
        if (!busy || now < next) return false;
        if (at == LINE_BITS) {
            busy = false;
            return false;
        }
        level = frame >> at++ & 1;
        next = cycle_of(begin + at * bit);
        return true;
    }
    uint8_t level = 1;

  private:
    bool begun = false;
};

struct Receiver {
    int64_t bit, begin = 0, next = 0;
    int32_t at = 0, byte = 0;
    uint8_t line = 1;
    bool busy = false;

    // Look at the line; true where a byte has ended, `stop` being its stop bit.
    bool look(uint8_t level, int64_t now, uint8_t* stop) {
        bool ended = false;
        if (!busy && line && !level) {
            busy = true;
            at = byte = 0;
            begin = (now << FRACTION) + bit / 2;
            next = cycle_of(begin);
        } else if (busy && now >= next) {
            if (at == 0) busy = !level;  // a start bit that is over by its middle is none
            else if (at < LINE_BITS - 1) byte |= level << (at - 1);
            else {
                busy = false;
                ended = true;
                *stop = level;
            }
            next = cycle_of(begin + ++at * bit);
        }
        line = level;
        return ended;
    }
};

struct Board {
    Board(const Core& core, int64_t bit, bool plain) : machine{core, plain} {
        sender.bit = receiver.bit = bit;
    }
    Machine machine;
    Sender sender;
    Receiver receiver;
    int64_t damaged = 0;

    void run(Call* call) {
        auto& top = *machine.port.top;
        call->in_taken = call->out_count = 0;
        for (int64_t edges = 0; edges < call->edges && machine.cycles < call->until; ++edges) {
            const bool more = call->in_taken < call->in_count;
            bool changed = sender.step(machine.cycles);
            if (!sender.busy && more) {
                sender.start(call->in[call->in_taken++], machine.cycles);
                changed |= sender.step(machine.cycles);
            }
            if (changed && top.rx != sender.level) {
                top.rx = sender.level;
                machine.touched();
            }
            if (quiet()) {
                if (call->stop_when_quiet) break;
                machine.skip(call->until - machine.cycles);
                break;
            }
            machine.edge();
            uint8_t stop;
            if (receiver.look(top.tx, machine.cycles, &stop)) {
                damaged += !stop;
                call->out[call->out_count++] = receiver.byte;
                if (call->out_count == call->out_room) break;
            }
        }
        call->quiet = quiet() && call->in_taken == call->in_count;
        call->damaged = damaged;
        machine.report(call);
    }

    bool quiet() const { return !sender.busy && !receiver.busy && machine.stands_still(); }
};

}  // namespace

// Return a board out of reset. bit : the host's bit, in cycles, FRACTION bits behind the point.
EXPORT void* celosia_board_open(const Core* core, int64_t bit, int64_t reset_cycles,
                                int32_t plain) {
    auto* board = new Board{*core, bit, plain != 0};
    board->machine.port.top->rx = 1;
    board->machine.open(reset_cycles);
    return board;
}

EXPORT void celosia_board_run(void* handle, Call* call) { static_cast<Board*>(handle)->run(call); }

EXPORT void celosia_board_close(void* handle) { delete static_cast<Board*>(handle); }
