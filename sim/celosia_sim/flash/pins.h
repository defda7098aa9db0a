// A flash chip at the pins of a verilated machine, with the registers that a board has there.
//
// The chip is that of chip.py, which is called at every edge of its pins (beside.py). Only what
// goes on while it gives one byte of its memory after another is done here, too.

#pragma once

#include <algorithm>
#include <cstdint>

// What the chip drives, and whether a read goes on: bits of each clock, or 0; its next byte.
struct Seen {
    int32_t levels, driven, lanes;
    int64_t at;
};

// Times are halves of a cycle of the machine: since the call before; between rising edges.
struct FlashChip {
    const uint8_t* memory;
    int64_t size;
    void (*step)(int32_t selected, int32_t clock, int32_t copi, int32_t drive, int64_t halves,
                 int64_t clocks, int64_t shortest, Seen* seen);
    int32_t wires, twice;  // data pins that are read; the clock pin may change twice a cycle
};

class FlashPins {
  public:
    void attach(const FlashChip* to) { chip = to; }

    // Let a cycle pass: before the clock edge, at which registers take what the core says.
    template <class Core>
    auto before(const Core& core, int) -> decltype(static_cast<void>(core.flash_cs)) {
        if (!chip) return;
        half(pins.clock && !chip->twice);
        half(pins.clock);
        const Pins next{core.flash_cs, core.flash_clock, core.flash_copi, core.flash_drive};
        moved = !(next == pins);
        pins = next;
    }

    // Behind the edge the core has what was at the data pins before it.
    template <class Core>
    auto after(Core& core, int) -> decltype(static_cast<void>(core.flash_cs)) {
        if (!chip) return;
        const int32_t levels = (seen.levels & seen.driven) | ~seen.driven;
        core.flash_i = levels & ((1 << chip->wires) - 1);
    }

    template <class Core>
    void before(const Core&, long) {}
    template <class Core>
    void after(Core&, long) {}

    // Nothing changed with the last edge, nor will with the next, while the core's outputs stay.
    bool still() const { return !moved && !pins.clock; }

  private:
    struct Pins {
        uint8_t cs, clock, copi, drive;
        bool operator==(const Pins& other) const {
            return cs == other.cs && clock == other.clock && copi == other.copi &&
                   drive == other.drive;
        }
    };
    const FlashChip* chip = nullptr;
    Pins pins{};
    bool moved = false;
    // What the chip saw, and when: halves since the last call, and between rising edges.
    uint8_t selected = 0, clock = 0, drive = 0;
    int64_t halves = 0, rise = 0, clocks = 0, given = 0;
    static constexpr int64_t NEVER = INT64_MAX;
    int64_t shortest = NEVER;
    Seen seen{};

    void half(bool level) {
        ++halves;
        ++rise;
        if (pins.cs == selected && level == clock && pins.drive == drive) return;
        const bool rises = pins.cs && level && !clock;
        if (seen.lanes && pins.cs && !pins.drive) {
            if (rises) {
                ++clocks;
                ++given;
                shortest = std::min(shortest, rise);
            } else {
                show();
            }
        } else {
            chip->step(pins.cs, level, pins.copi, pins.drive, halves, clocks, shortest, &seen);
            halves = clocks = given = 0;
            shortest = NEVER;
        }
        if (rises) rise = 0;
        selected = pins.cs;
        clock = level;
        drive = pins.drive;
    }

    // Give the next bits of the read, the highest first; one goes out on pin 1.
    void show() {
        const int64_t bit = given * seen.lanes;
        const int32_t mask = (1 << seen.lanes) - 1, low = 8 - seen.lanes - bit % 8;
        const int32_t bits = chip->memory[(seen.at + bit / 8) % chip->size] >> low & mask;
        seen.levels = seen.lanes == 1 ? bits << 1 : bits;
        seen.driven = seen.lanes == 1 ? 2 : mask;
    }
};
