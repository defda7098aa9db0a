// A core that does at the pins of a flash what it is told, cycle by cycle.

#include "pins.h"

#include <cstdint>

namespace {

struct Core {
    uint8_t flash_cs, flash_clock, flash_copi, flash_drive, flash_i;
};

}  // namespace

// pins : select, clock, data out, drive of each cycle.   given : the data pins behind its end.
extern "C" void run(const FlashChip* chip, int64_t cycles, const uint8_t* pins, uint8_t* given) {
    FlashPins flash;
    flash.attach(chip);
    Core core{};
    for (int64_t k = 0; k < cycles; ++k, pins += 4) {
        core.flash_cs = pins[0];
        core.flash_clock = pins[1];
        core.flash_copi = pins[2];
        core.flash_drive = pins[3];
        flash.before(core, 0);
        flash.after(core, 0);
        given[k] = core.flash_i;
    }
}
