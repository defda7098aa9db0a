"""Requests over a line that may damage, lose or delay bytes: each carried out, or an error.

Replies come in the order of the requests. While nothing is damaged, requests follow each other
without a pause, many on their way at once. After the first damage they go in bursts of fewer than
there are tags, each closed by a request whose reply cannot be taken for another's: what is missing
then is known, and repeated.

A damaged request may pass its CRC, one in 65,536 of those whose length changed. Nothing here can
see that; `Tally.damages` tells whoever uses this that the line damages anything at all.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from celosia_boards.host.holders import holders
from celosia_boards.host.link import LINE_BITS, Line, LinkError
from celosia_boards.host.requests import READ_HASH, REGISTER_BYTES, Requests
from celosia_spec.errors import CelosiaError
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Decoder, Kind, Reason, Reply
from celosia_spec.isa.registers import Register

__all__ = ["SILENCE", "Busy", "Damage", "Exchange", "HostError", "LineError", "StrangerError"]

SILENCE = 3.0
"""Seconds without a sign of the machine, after which it is given up."""

_AHEAD, _LEAST = 0.03, 512
"""Requests on their way whose replies have not come: for so many seconds of the line, which is more
than a USB bridge keeps replies back (16 ms at most), and at least so many bytes."""

_TAGS = 1 << protocol.TAG_BITS
_BURST = 11
"""Requests of a burst: with the closing one, and one more that a duplicate may look like, fewer
than there are tags."""
_FIRST, _LAST, _HELLO = 5, 10, 12
"""Tags, from a greeting's first one on, of its two closing requests, and how many it takes. No
other requests follow each other with tags so far apart, so replies to earlier ones are told from
those to a greeting; nor do greetings that follow each other have a tag in common."""
_FEW, _WORDS = 8, 200       # characters of what the other end of a line says of itself
_QUIET, _GAP = 0.01, 1.0
"""Seconds that a missing reply is waited for, at least: of a burst, and of a stream."""
_TRIES = 64
"""Bursts without one good reply among them, after which the line is given up."""


class HostError(CelosiaError):
    """The machine on a board did not do what was asked; the message says why and what to do."""


class LineError(HostError):
    """No sign of the machine, or too much of what is sent is damaged."""


class StrangerError(HostError):
    """What answers is not the machine that answered before."""


class Damage(Exception):
    """Replies are missing, damaged or not those expected."""


class Busy(Exception):
    """A request was rejected because the machine runs."""


@dataclass
class Tally:
    """What went over a line so far.

    sent     : requests.   replies : those that were expected and whole.
    damages  : times that replies were missing or wrong.
    greeted  : times that the machine was greeted, which stops a run and clears its registers.
    """

    sent: int = 0
    replies: int = 0
    damages: int = 0
    greeted: int = 0


class Exchange:
    """Carries out requests on the machine at the other end of ``line``.

    tally : `Tally` so far.
    array_hash : of the machine, once `greet` has found it.
    """

    def __init__(self, line: Line) -> None:
        self.line, self.tally = line, Tally()
        self.array_hash: int | None = None
        self._decoder, self._tag, self._slowest = Decoder(), 0, 0.0
        self._torn = False          # whether replies may still come that nobody waits for
        self._window = max(_LEAST, int(_AHEAD * line.baud / LINE_BITS))

    def greet(self) -> int:
        """Find the machine, stop what it does, and return its array's hash.

        LineError where nothing answers as it should in `SILENCE`. Whatever was sent before, whole
        or not, has been answered or dropped when this returns.
        """
        start, wait, heard = self.line.now(), self._quiet(), bytearray()
        self._torn = True
        self.tally.greeted += 1
        self._decoder.clear()
        while True:
            tag, begun, before = self._next(_HELLO), self.line.now(), None
            hello = b"".join([protocol.RESYNC, protocol.paced(protocol.encode_abort(tag=tag)),
                              *READ_HASH.frames(tag + _FIRST), *READ_HASH.frames(tag + _LAST)])
            line_time = LINE_BITS * len(hello) / self.line.baud
            try:
                self._write(hello)
            except LinkError:
                heard += self.line.read(0.0)        # a last word, or the same error
            while (left := begun + line_time + wait - self.line.now()) > 0:
                try:
                    data = self.line.read(left)
                except LinkError as gone:
                    raise self._farewell(gone, bytes(heard)) from None
                heard += data
                for reply in self._decoder.feed(data):
                    if self._answers(reply, before, tag):
                        self._slowest = max(self.line.now() - begun - line_time, 0.0)
                        self._decoder.skipped = 0
                        found, self._torn = self._known(reply), False
                        return found
                    before = reply
            self._decoder.clear()
            if self.line.now() - start > SILENCE:
                raise self._silent(len(heard))
            wait = min(2 * wait, SILENCE / 4)

    def stream(self, parts: Iterable[Requests]) -> Iterator[Reply]:
        """Carry out requests without waiting for replies, and yield the reply to each, in order.

        Damage at the first reply that is missing or not what its request is answered with when it
        was carried out; Busy likewise. Everything sent after it may or may not have been done:
        `greet` must follow. A loss of 16 replies in a row, or of a multiple, shows only at the next
        read, whose reply has another length: requests before a read that was answered are certain.
        """
        self._begin()
        waiting: deque[tuple[int, tuple[Kind, ...], int]] = deque()
        source, flying = _frames(parts, self._next), 0
        more = True
        while True:
            batch = bytearray()
            while more and flying < self._window:
                found = next(source, None)
                if found is None:
                    more = False
                    break
                tag, kinds, frame = found
                waiting.append((tag, kinds, len(frame)))
                batch += frame
                flying += len(frame)
                self.tally.sent += 1
            if batch:
                self._write(bytes(batch))
            if not waiting:
                self._torn = False
                return
            came = self.line.read(_GAP + 4 * self._slowest + LINE_BITS * flying / self.line.baud)
            if not came:
                raise self._damaged()
            for reply in self._decoder.feed(came):
                if not waiting:
                    raise self._damaged()
                tag, kinds, size = waiting.popleft()
                if reply.tag != tag or reply.kind not in kinds:
                    if reply.tag == tag and reply.reason is Reason.BUSY:
                        raise Busy
                    raise self._damaged()
                flying -= size
                self.tally.replies += 1
                yield reply
            if self._decoder.skipped:
                raise self._damaged()

    def perform(self, requests: Requests) -> list[Reply]:
        """Carry out requests in bursts, repeat those without a good reply, return the replies.

        For requests that may be repeated in any order. A run that is under way is aborted.
        LineError where nothing gets through, StrangerError where another machine answers.
        """
        replies: dict[int, Reply] = {}
        pending, tries = list(range(len(requests))), 0
        while pending:
            found = self._burst(requests.at(pending[:_BURST]))
            tries = 0 if found else tries + 1
            if tries > _TRIES:
                raise LineError(f"{self.line.name}: nothing gets through undamaged; use a shorter "
                                f"cable or another port, or build for a lower baud rate")
            replies |= {pending[place]: reply for place, reply in found.items()}
            pending = [index for index in pending if index not in replies]
        return [replies[index] for index in range(len(requests))]

    def _burst(self, requests: Requests) -> dict[int, Reply]:
        """Return the good replies to at most `_BURST` requests, by their places."""
        self._begin()
        count, kinds = len(requests), requests.kinds()
        tag, begun = self._next(count + 1), self.line.now()
        self.tally.sent += count
        burst = b"".join([*requests.frames(tag), *READ_HASH.frames(tag + count)])
        self._write(burst)
        line_time = LINE_BITS * len(burst) / self.line.baud
        found: dict[int, Reply] = {}
        clean = True
        while (left := begun + line_time + self._quiet() - self.line.now()) > 0:
            came = self.line.read(left)
            for reply in self._decoder.feed(came):
                place = (reply.tag - tag) % _TAGS
                if (place == count and reply.kind is Kind.DATA
                        and reply.elements(REGISTER_BYTES)[Register.ARRAY_HASH] == self.array_hash):
                    self._slowest = max(self.line.now() - begun - line_time, self._slowest * 0.9)
                    if not (clean and len(found) == count) or self._decoder.skipped:
                        self._damaged()
                    self._decoder.skipped, self._torn = 0, False
                    self.tally.replies += len(found)
                    return found
                if place < count and reply.kind in kinds[place] and place not in found:
                    found[place] = reply
                else:
                    clean = False
        self._damaged()
        self.greet()
        self.tally.replies += len(found)
        return found

    def ask(self, request: Requests) -> Reply | None:
        """Carry out one request while the machine may be running; None without a good reply, after
        which `greet` or `settle` must follow."""
        self._begin()
        tag, begun = self._next(1), self.line.now()
        self.tally.sent += 1
        frame = request.frames(tag)[0]
        self._write(frame)
        line_time = LINE_BITS * len(frame) / self.line.baud
        while (left := begun + line_time + self._quiet() - self.line.now()) > 0:
            for reply in self._decoder.feed(self.line.read(left)):
                if reply.tag == tag and reply.kind in request.kinds()[0]:
                    self.tally.replies += 1
                    self._torn = False
                    return reply
                self._damaged()
                return None
        self._damaged()
        return None

    def settle(self) -> None:
        """Let the machine drop what it took for part of a frame, and forget what it still says."""
        self._write(protocol.RESYNC)
        end = self.line.now() + SILENCE
        while self.line.read(self._quiet()) and self.line.now() < end:
            pass
        self._decoder.clear()
        self._decoder.skipped, self._torn = 0, False

    def _begin(self) -> None:
        """Greet the machine where whoever asked before, and was interrupted, left replies."""
        if self._torn:
            self.greet()
        self._torn = True

    def _answers(self, reply: Reply, before: Reply | None, tag: int) -> bool:
        """Whether a reply is that to the last request of a greeting, by the machine's hash, or by
        the one before it where the hash is not known."""
        if reply.kind is not Kind.DATA or reply.tag != (tag + _LAST) % _TAGS:
            return False
        if reply.elements(REGISTER_BYTES)[Register.ARRAY_HASH] == self.array_hash:
            return True
        return (before is not None and before.kind is Kind.DATA
                and before.tag == (tag + _FIRST) % _TAGS
                and before.data[:REGISTER_BYTES] == reply.data[:REGISTER_BYTES])

    def _known(self, reply: Reply) -> int:
        """Return the hash that a reply to `READ_HASH` tells; StrangerError where it was another."""
        found = reply.elements(REGISTER_BYTES)[Register.ARRAY_HASH]
        if self.array_hash is not None and found != self.array_hash:
            raise StrangerError(f"{self.line.name}: another machine answers than at first; connect "
                                f"to it again")
        return found

    def _next(self, count: int) -> int:
        """Return the first of so many tags that were not used just before."""
        tag = self._tag
        self._tag = (tag + count) % _TAGS
        return tag

    def _quiet(self) -> float:
        """Return for how long a missing reply is waited for, beyond the time on the line."""
        return min(_QUIET + 4 * self._slowest, SILENCE / 4)

    def _write(self, data: bytes) -> None:
        self.line.write(data, SILENCE + 2 * LINE_BITS * len(data) / self.line.baud)

    def _damaged(self) -> Damage:
        self.tally.damages += 1
        self._decoder.skipped = 0
        return Damage()

    @staticmethod
    def _farewell(gone: LinkError, heard: bytes) -> LinkError:
        """Return why the other end closed the line: what it said in words, if it did."""
        words = heard[-_WORDS:].decode("ascii", "replace").strip()
        if len(words) < _FEW or not words.isprintable() or "\ufffd" in words:
            return gone
        return LinkError(f"{gone}; it said: {words}")

    def _silent(self, heard: int) -> LineError:
        """Return why there is no machine, after so many bytes came from the line."""
        if heard:
            return LineError(
                f"{self.line.name}: {heard} bytes came at {self.line.baud:,} baud, and no Celosia "
                f"sends them; is it this board's serial port, and was it built for another speed "
                f"(--baud)?")
        others = holders(self.line.name)
        taken = f" ({' and '.join(others)} has it open, too)" if others else ""
        return LineError(
            f"{self.line.name}: nothing answers at {self.line.baud:,} baud{taken}; load the board "
            f"with celosia flash, and check with celosia doctor that this is its serial port")


def _frames(parts: Iterable[Requests],
            tags: Callable[[int], int]) -> Iterator[tuple[int, tuple[Kind, ...], bytes]]:
    for part in parts:
        first: int = tags(len(part))
        for number, (kinds, frame) in enumerate(zip(part.kinds(), part.frames(first),
                                                    strict=True)):
            yield (first + number) % _TAGS, kinds, frame

