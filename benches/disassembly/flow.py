"""What instructions do on any architecture, the blocks of a function, and how secrets are followed through them.

An architecture is a module: `decode(address, text)` makes instructions of a line that `objdump` shows; `growth(function, i)` says by how
many bytes the stack grows at one; `arithmetic(instruction)` what it does with constants and pointers;
`table(program, code, end)` where a jump to a register goes; ARGUMENTS_FROM, for each register that points to a frame, from where on what
is above it is the caller's.
"""

import bisect
import re

SECRET, DATA, REFERENCE, TABLE, MODULUS, PUBLIC = -1, 0, 1, 2, 8, 9

# Of arguments: what is returned is written to where a pointer says.
RETURNED = "returned"

NO_RETURN = re.compile(r"panic|_fail(ed)?\b|len_mismatch|handle_alloc_error|unreachable")


def number(text):
    """An immediate of ARM's and AArch64's syntax."""
    return int(text.lstrip("#"), 0)


def split(text, comment):
    """The mnemonic and the operands of a line in that syntax, without what `objdump` adds: a symbol, and what follows `comment`."""
    name, _, rest = re.sub(rf"\s*{comment}.*$", "", text).partition("\t")
    rest = re.sub(r"\s*<.*>$", "", rest.strip())
    return name.strip(), [operand.strip() for operand in re.split(r",(?![^\[{]*[\]}])", rest)] if rest else []


class Memory:
    """An operand in memory."""

    def __init__(self, base=None, index=None, displacement=0, size=8, fixed=False):
        # `fixed`: at a constant address.
        self.base, self.index, self.displacement, self.size, self.fixed = base, index, displacement, size, fixed

    def registers(self):
        return [register for register in (self.base, self.index) if register is not None]

    def slot(self, function, instruction):
        """A constant place on the stack, if it is one, for the instruction that has this operand."""
        if self.index is not None:
            return None
        stack = function.architecture.STACK
        if self.base == stack:
            return stack, self.displacement - instruction.depth
        if self.base in instruction.points:
            return stack, self.displacement + instruction.points[self.base]
        return (self.base, self.displacement) if self.base in function.frames else None


class Instruction:
    """What an instruction reads and writes."""

    def __init__(self, address, text, name):
        self.address, self.text, self.name = address, text, name
        # For the multiplications that a kernel is built on.
        self.operation = name
        # `flags_kept`: of those that are written, what may stay as it was.
        self.reads, self.writes, self.flags_read, self.flags_written, self.flags_kept = [], [], (), (), ()
        self.memory, self.loads, self.stores = None, False, False
        # It keeps some of what it writes to.
        self.keeps = False
        # How far the stack has grown before it, and registers that point into it, from where it began.
        self.depth, self.points = 0, {}
        # Bytes that the stack grows by in the addressing; the base of it that moves.
        self.pushes, self.moved = 0, None
        self.constant = self.narrow = self.is_address = self.sums = self.divides = False
        self.may_set_flags = self.strings = self.unknown = False
        # Jumps and calls. `falls`: what is below may be next.
        self.is_call = self.is_jump = False
        self.target = self.condition = None
        self.targets = []
        self.falls = True
        # The name of the condition under which it is not left out.
        self.under = None


class Function:
    """A function's instructions, and the blocks between its jumps."""

    def __init__(self, program, name, lines):
        self.name, self.architecture = name, program.architecture
        decode = self.architecture.decode
        self.code = [instruction for address, text in lines for instruction in decode(address, text)]
        for instruction in self.code:
            if instruction.is_call and NO_RETURN.search(program.called(instruction)):
                instruction.falls = False
        addresses = [instruction.address for instruction in self.code]
        starts = {0}
        for i, instruction in enumerate(self.code):
            if instruction.is_jump or not instruction.falls:
                starts.add(i + 1)
                if instruction.target is not None:
                    instruction.targets = [instruction.target]
                elif instruction.is_jump and not instruction.falls:
                    instruction.targets = list(self.architecture.table(program, self.code, i + 1))
                for target in instruction.targets:
                    at = bisect.bisect_left(addresses, target)
                    if at < len(addresses) and addresses[at] == target:
                        starts.add(at)
        starts = sorted(start for start in starts if start < len(self.code))
        self.blocks = list(zip(starts, starts[1:] + [len(self.code)]))
        block_at = {addresses[start]: block for block, (start, _) in enumerate(self.blocks)}
        self.follows, self.not_followed = [], []
        for block, (_, end) in enumerate(self.blocks):
            last = self.code[end - 1]
            follows = sorted({block_at[target] for target in last.targets if target in block_at})
            if last.falls and block + 1 < len(self.blocks):
                follows.append(block + 1)
            # Through a pointer in memory it is another function that ends this one.
            if last.is_jump and not last.falls and not last.targets and last.memory is None:
                self.not_followed.append(last)
            self.follows.append(follows)
        self.follow_stack()

    def follow_stack(self):
        """How far the stack has grown at each instruction, from block to block, and which registers point into it."""
        self.frames, self.aligned = {self.architecture.STACK}, False
        known = {0: (0, {})}
        waiting = [0]
        while waiting:
            block = waiting.pop()
            depth, points = known[block]
            start, end = self.blocks[block]
            for i in range(start, end):
                self.code[i].depth, self.code[i].points = depth, points
                points = after(self, self.code[i], points)
                was = self.aligned
                depth += self.architecture.growth(self, i)
                # By how much the stack was aligned is not known.
                points = points if self.aligned == was else {}
            for follower in self.follows[block]:
                before = known.get(follower)
                both = points if before is None else dict(points.items() & before[1].items())
                if before is None or both != before[1]:
                    known[follower] = (depth if before is None else before[0], both)
                    waiting.append(follower)


def after(function, instruction, known):
    """Registers that point into the stack, after this: a constant from where it began. Places on the stack that hold such a pointer are
    known by their own number, and numbers that may be added to one as `#x0`."""
    architecture = function.architecture
    lost = {*(architecture.CALL_CLOBBERS if instruction.is_call else instruction.writes), instruction.moved}
    lost |= {f"#{register}" for register in lost}
    slot = instruction.memory.slot(function, instruction) if instruction.memory else None
    whole = slot is not None and instruction.memory.size == architecture.WORD
    if slot and instruction.stores:
        lost.update(range(slot[1] - architecture.WORD + 1, slot[1] + instruction.memory.size))
    left = {name: value for name, value in known.items() if name not in lost} if lost & known.keys() else known
    found = None
    if whole and instruction.stores and instruction.reads:
        found = slot[1], known.get(instruction.reads[0])
    elif whole and instruction.loads and instruction.writes:
        found = instruction.writes[0], known.get(slot[1])
    elif done := architecture.arithmetic(instruction):
        kind, to, *rest = done
        if kind == "copy":
            found = to, pointed(function, instruction, known, *rest)
        elif kind == "sum":
            first, second = rest
            sums = [
                pointed(function, instruction, known, pointer, known.get(f"#{by}"))
                for pointer, by in ((first, second), (second, first))
            ]
            found = to, next((place for place in sums if place is not None), None)
        elif kind == "number":
            found = f"#{to}", rest[0]
        elif (before := known.get(f"#{to}")) is not None:
            value, shift = rest
            found = f"#{to}", before & ~(0xFFFF << shift) | value << shift
    if found is None or found[1] is None:
        return left
    return left | {found[0]: found[1]}


def pointed(function, instruction, known, register, by):
    """So many bytes from where a register points into the stack."""
    at = -instruction.depth if register == function.architecture.STACK else known.get(register)
    return None if at is None or by is None else at + by


class Analysis:
    """Depths of a function's registers at each instruction, and what goes against the rules."""

    def __init__(self, function, arguments, fields):
        self.function, self.fields, self.architecture = function, fields, function.architecture
        self.findings = {}
        flags = dict.fromkeys(self.architecture.FLAGS, PUBLIC)
        first = int(arguments.get(RETURNED, False) and self.architecture.RETURNS_THROUGH_ARGUMENT)
        named = {
            self.architecture.ARGUMENTS[first + number]: depth
            for number, depth in arguments.items()
            if number != RETURNED
        }
        self.entry = dict.fromkeys(self.architecture.ALL, DATA) | flags | self.architecture.KNOWN | named
        self.run()

    def run(self):
        function = self.function
        states = {0: self.entry}
        waiting = [0]
        while waiting:
            block = waiting.pop()
            state = dict(states[block])
            start, end = function.blocks[block]
            self.under, self.there = None, {}
            for instruction in function.code[start:end]:
                self.step(instruction, state)
            for follower in function.follows[block]:
                known = states.get(follower)
                if known is None:
                    states[follower] = dict(state)
                    waiting.append(follower)
                    continue
                lower = False
                for place, depth in state.items():
                    if depth < (of_both := known.get(place, PUBLIC + 1)):
                        if of_both > PUBLIC and (whole := self.whole(place)):
                            depth = min(depth, known.get(whole, PUBLIC))
                        known[place] = depth
                        lower = True
                for place in [place for place in known if place not in state and self.whole(place)]:
                    if (depth := state.get(self.whole(place), PUBLIC)) < known[place]:
                        known[place] = depth
                        lower = True
                if lower and follower not in waiting:
                    waiting.append(follower)

    @staticmethod
    def depth(state, register):
        """Of a register. The lowest byte of one is followed by itself while it was written to alone."""
        if isinstance(register, tuple):
            return state.get(register, state[register[1]])
        return min(state[register], state.get(("low", register), PUBLIC))

    def lowest(self, state, registers):
        return min((self.depth(state, register) for register in registers), default=PUBLIC)

    def address(self, memory, state):
        """The depth of an address."""
        if memory.fixed:
            return MODULUS
        return self.sum([self.depth(state, register) for register in memory.registers()])

    @staticmethod
    def sum(depths):
        """Of a pointer and numbers, or of numbers."""
        if min(depths, default=PUBLIC) < 0:
            return SECRET
        return max((depth for depth in depths if depth != PUBLIC), default=PUBLIC)

    def load(self, instruction, state):
        memory = instruction.memory
        slot = memory.slot(self.function, instruction)
        if slot is not None:
            small = self.bytes(slot, memory.size)
            depths = [state[place] for place in small if place in state]
            if not depths or len(depths) < len(small):
                for word in self.words(slot, memory.size):
                    depths += [
                        state[place]
                        for place in (word, *((*word, byte) for byte in range(self.architecture.WORD)))
                        if place in state
                    ]
            if depths:
                return min(depths)
            frame, at = slot
            known = at >= self.architecture.ARGUMENTS_FROM[frame]
            return DATA if known and (frame != self.architecture.STACK or not self.function.aligned) else SECRET
        if memory.base in self.function.frames:
            return SECRET
        if memory.fixed:
            return PUBLIC
        depth = self.address(memory, state)
        if depth <= DATA or depth == PUBLIC:
            return SECRET
        if depth == MODULUS:
            return DATA
        if depth == REFERENCE:
            return DATA if memory.index is None and memory.displacement in self.fields else SECRET
        return depth - 1

    @staticmethod
    def whole(place):
        """What a byte that is followed by itself is part of."""
        if isinstance(place, str) or len(place) == 2 and place[0] != "low":
            return None
        return place[1] if place[0] == "low" else place[:2]

    def words(self, slot, size):
        """The words of the stack that a constant place touches."""
        (frame, at), word = slot, self.architecture.WORD
        return [(frame, number) for number in range(at // word, (at + size + word - 1) // word)]

    def bytes(self, slot, size):
        """Its bytes, where it is smaller than a word: they are kept beside the word that they are part of."""
        (frame, at), word = slot, self.architecture.WORD
        return [(frame, byte // word, byte % word) for byte in range(at, at + size)] if size < word else []

    def store(self, slot, size, depth, state):
        at, word = slot[1], self.architecture.WORD
        if size < word:
            state.update(dict.fromkeys(self.bytes(slot, size), depth))
            return
        for place in self.words(slot, size):
            whole = at <= place[1] * word and place[1] * word + word <= at + size
            if not whole:
                state[place] = min(depth, state.get(place, PUBLIC))
                continue
            state[place] = depth
            for byte in range(self.architecture.WORD):
                state.pop((*place, byte), None)

    def find(self, instruction, rule):
        self.findings[instruction.address] = (rule, instruction.text)

    def step(self, instruction, state):
        memory, name = instruction.memory, instruction.name
        if instruction.under != self.under:
            self.under, self.there = instruction.under, {}
        # What was written under a condition is what is read under it.
        known = state | self.there if self.there else state
        if memory is not None and not instruction.is_address and self.address(memory, known) < 0:
            self.find(instruction, "address")
        if instruction.unknown:
            self.find(instruction, "unknown")
        # What may be left out, and shows in time that it was.
        if memory is not None and instruction.condition and self.lowest(known, instruction.condition) < 0:
            self.find(instruction, "branch")
        if instruction.is_jump or instruction.is_call:
            depth = self.lowest(known, [*instruction.reads, *(instruction.condition or ())])
            if memory is not None:
                depth = min(depth, self.load(instruction, known))
            if depth < 0:
                self.find(instruction, "branch")
            if instruction.is_call:
                if copies := re.search(r"mem(cpy|move|cmp|set)", instruction.text):
                    to, source, length = self.architecture.ARGUMENTS[:3]
                    pointers = [to] if copies.group(1) == "set" else [to, source]
                    if self.lowest(known, [length, *pointers]) < 0:
                        self.find(instruction, "address")
                for register in self.architecture.CALL_CLOBBERS:
                    state[register] = SECRET
                    state.pop(("low", register), None)
            return
        if instruction.strings:
            if self.lowest(known, instruction.reads[: 3 if name == "movs" else 2]) < 0:
                self.find(instruction, "address")
            return
        if instruction.is_address:
            depth = self.address(memory, known)
        elif instruction.constant:
            depth = PUBLIC
        else:
            depths = [self.depth(known, register) for register in instruction.reads]
            if instruction.keeps:
                depths += [self.depth(known, register) for register in instruction.writes]
            if instruction.loads:
                depths.append(self.load(instruction, known))
            # A pointer and a number make a pointer.
            depth = self.sum(depths) if instruction.sums else min(depths, default=PUBLIC)
            if any(known[flag] < 0 for flag in instruction.flags_read):
                depth = SECRET
        if depth < 0 and instruction.divides:
            self.find(instruction, "division")
        for register in instruction.writes:
            if register == self.architecture.STACK:
                continue
            if isinstance(register, str):
                depth_before = self.depth(state, register)
                state.pop(("low", register), None)
                merged = instruction.narrow or instruction.under is not None
                state[register] = min(depth, depth_before) if merged else depth
                if instruction.under is not None:
                    self.there[register] = depth
            else:
                state[register] = depth
        if instruction.stores and (slot := memory.slot(self.function, instruction)):
            depth_before = self.load(instruction, state) if instruction.under is not None else PUBLIC
            self.store(slot, memory.size, min(depth, depth_before), state)
        for flag in instruction.flags_written:
            state[flag] = min(depth, state[flag]) if flag in instruction.flags_kept else depth
        if instruction.may_set_flags:
            state.update((flag, min(depth, state[flag])) for flag in self.architecture.FLAGS)
