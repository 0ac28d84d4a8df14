"""AArch64."""

import re

import flow
from flow import Memory, number, split

MACHINE = 0xB7  # Of ELF: EM_AARCH64.
OBJDUMP = ["aarch64-linux-gnu-objdump"]
ADDR2LINE = "aarch64-linux-gnu-addr2line"
THROUGH_POINTER = None

ALL = {*(f"x{n}" for n in range(31)), "sp", *(f"v{n}" for n in range(32))}
ARGUMENTS = [f"x{n}" for n in range(8)]
RETURNS_THROUGH_ARGUMENT = False  # x8 has it.
STACK = "sp"
ARGUMENTS_FROM = {STACK: 0}
WORD = 8
KNOWN = {}
FLAGS = ("nzcv",)
# The lower halves of v8 to v15 are the caller's: all of them are taken for lost.
CALL_CLOBBERS = [*(f"x{n}" for n in range(19)), "x30", *(f"v{n}" for n in range(32))]

REGISTER = re.compile(r"([xwvqdshb])(\d+)(?:\.\d*[bhsdq])?(?:\[\d+\])?$|sp$|wsp$|[xw]zr$")
WIDTHS = {"x": 8, "w": 4, "q": 16, "v": 16, "d": 8, "s": 4, "h": 2, "b": 1}
SUFFIXES = {"b": 1, "h": 2, "w": 4}

IDLE = re.compile(
    r"nop|hint|bti|pac|aut|xpac|d[ms]b|isb|prfu?m|yield|clrex|msr|svc|udf|brk|hlt|ret|csdb|sb$|dc$|ic$|\.inst"
)
STORES = re.compile(r"st(u|l|lu|t|n)?[rp][bh]?$|st[1-4]$")
ATOMIC = re.compile(r"(ld|st)(add|clr|set|eor|[su]max|[su]min)|swp|cas|st(l)?x[rp]")
COMPARES = re.compile(r"cmp$|cmn$|tst$|ccm[pn]$|fc?cmpe?$|fcmpe?$")
SETS_FLAGS = re.compile(r"(add|sub|adc|sbc|and|bic|neg|ngc)s$")
READS_FLAGS = re.compile(r"(adc|sbc|ngc)s?$|f?csel$|cset|csinc$|csinv$|csneg$|c(inc|inv|neg)$|f?ccm[pn]e?$")
# They read what they write to.
KEEPS = re.compile(
    r"movk$|bf|[us]ml[as]l2?$|ml[as]$|fml|s[lr]i$|[us]r?sra$|bsl$|bi[tf]$|ins$|[us]abal?2?$|[us]adalp$|tbx$|\w*x?tu?n2$|\w*hn2$"
    r"|\w*shru?n2$|sqr?dml|[us]u?dot$|[us]mmla$|sha|aes|eor3$"
)
SUMS = re.compile(r"(add|sub)s?$|m(add|sub)$|[us]m(add|sub)l$")
DIVIDES = re.compile(r"[us]div$|fdiv$|fsqrt$|frsqrt")


def register(text):
    """The whole register that a name is (part) of; none for the zero register, and for what is no register."""
    match = REGISTER.match(text)
    if match is None or text in ("xzr", "wzr"):
        return None
    if match.group(1) is None:
        return "sp"
    return ("x" if match.group(1) in "xw" else "v") + match.group(2)


def width(text):
    """Bytes of a register; of a vector's element with its number, those of the element."""
    if match := re.match(r"v\d+\.\d*([bhsdq])(\[\d+\])?$", text):
        return WIDTHS[match.group(1)] if match.group(2) else 16
    return 8 if text in ("sp", "xzr") else 4 if text in ("wsp", "wzr") else WIDTHS[text[0]]


class Instruction(flow.Instruction):
    """What `objdump` shows of one."""

    def __init__(self, address, text, name, operands):
        super().__init__(address, text, name)
        self.sums, self.divides = bool(SUMS.match(name)), bool(DIVIDES.match(name))
        self.falls = not re.match(r"(b|br|ret\w*|brk|udf)$", name)
        if operands and operands[0].startswith(("v", "{v")):
            self.operation = "v" + name
        if re.match(r"b$|b\.|bc\.|br$|bl$|blr$|[ct]bn?z$", name):
            self.decode_jump(operands)
            return
        if name in ("adr", "adrp"):
            self.writes, self.memory, self.is_address = [register(operands[0])], Memory(fixed=True), True
            return
        if IDLE.match(name):
            return
        self.decode(name, operands)

    def decode_jump(self, operands):
        name = self.name
        self.is_call = name in ("bl", "blr")
        self.is_jump = not self.is_call
        if re.fullmatch(r"[0-9a-f]+", operands[-1]):
            self.target = int(operands[-1], 16)
        if name.startswith(("cb", "tb")):
            self.condition, self.reads = (), [register(operands[0])]
        elif "." in name:
            self.condition = FLAGS
        elif name in ("br", "blr"):
            self.reads = [register(operands[0])]

    def decode(self, name, operands):
        memories = [operand for operand in operands if operand.startswith("[")]
        places = []
        for operand in operands:
            if operand.startswith("{"):
                places += listed(operand)
            elif not operand.startswith("["):
                places.append(operand)
        if memories or re.match(r"ld(u|a|t)?rs?[bhw]?$", name):
            self.decode_memory(name, operands, memories, places)
            return
        registers = [register(place) for place in places]
        if COMPARES.match(name):
            self.reads = [found for found in registers if found]
            self.flags_written = FLAGS
        elif registers:
            self.writes = [registers[0]] if registers[0] else []
            self.reads = [found for found in registers[1:] if found]
            # An element of a vector leaves the others.
            self.keeps = bool(KEEPS.match(name)) or "[" in places[0]
            self.constant = name in ("eor", "sub", "cmeq") and len(places) == 3 and places[1] == places[2]
        if SETS_FLAGS.match(name):
            self.flags_written = FLAGS
        if READS_FLAGS.match(name):
            self.flags_read = FLAGS

    def decode_memory(self, name, operands, memories, places):
        after = operands[operands.index(memories[0]) + 1 :] if memories else []
        # What stands behind the brackets is added to the base afterwards.
        places = places[: len(places) - len(after)]
        size = sum(width(place) for place in places if REGISTER.match(place))
        if match := re.match(r"(?:ld|st)(?:u|a|l|lu|t|x|ax|lx)?rs?([bhw])$", name):
            size = SUFFIXES[match.group(1)]
        if memories:
            self.memory = in_memory(memories[0], size)
            if self.memory.base == STACK:
                if memories[0].endswith("!"):
                    self.pushes = -self.memory.displacement
                elif after and after[0].startswith("#"):
                    self.pushes = -number(after[0])
            if after or memories[0].endswith("!"):
                self.moved = self.memory.base
            if after and (step := register(after[0])):
                self.memory.index = step
        else:
            self.memory = Memory(size=size, fixed=True)
            places = places[:1]
        registers = [found for found in map(register, places) if found]
        if ATOMIC.match(name):
            self.loads = self.stores = True
            self.reads, self.writes, self.keeps = registers, registers, True
        elif STORES.match(name):
            self.stores, self.reads = True, registers
        else:
            self.loads, self.writes = True, registers
            self.keeps = any(place.endswith("]") for place in places)


def listed(operand):
    """The registers of `{v0.16b, v1.16b}`, `{v0.16b-v3.16b}` or `{v0.s}[1]`, an element with its number."""
    inside, _, element = operand[1:].partition("}")
    names = [name.strip() for name in inside.split(",")]
    if "-" in inside:
        first, last = (re.match(r"v(\d+)(\..*)", name.strip()) for name in inside.split("-"))
        count = (int(last.group(1)) - int(first.group(1))) % 32 + 1
        names = [f"v{(int(first.group(1)) + n) % 32}{first.group(2)}" for n in range(count)]
    return [name + element for name in names]


def in_memory(text, size):
    """An operand in memory: `[x0]`, `[x0, #8]`, `[x0, #8]!`, `[x0, x1, lsl #3]`, `[x0, w1, uxtw #2]`."""
    base, *rest = [part.strip() for part in text.rstrip("!").strip("[]").split(",")]
    memory = Memory(register(base), size=size)
    if rest and rest[0].startswith("#"):
        memory.displacement = number(rest[0])
    elif rest:
        memory.index = register(rest[0])
    return memory


def decode(address, text):
    """The instructions of a line: that of a pair of words is two, one for each."""
    name, operands = split(text, "//")
    if not re.match(r"(ld|st)n?p(sw)?$", name):
        return [Instruction(address, text, name, operands)]
    one = {"ldpsw": "ldrsw"}.get(name, name[:2] + "r")
    step = 4 if name == "ldpsw" else width(operands[0])
    inside = operands[2].rstrip("!").strip("[]")
    base, _, displacement = (part.strip() for part in inside.partition(","))
    at = number(displacement) if displacement else 0
    pair = [
        Instruction(address, text, one, [operand, f"[{base}, #{at + step * i}]"])
        for i, operand in enumerate(operands[:2])
    ]
    # The base may be one of those that are loaded: it is read first.
    if one.startswith("ld") and register(operands[0]) == register(base):
        pair.reverse()
    if (before := operands[2].endswith("!")) or len(operands) > 3:
        pair[1].moved = register(base)
        if pair[1].moved == STACK:
            pair[1].pushes = -at if before else -number(operands[3])
    return pair


def table(_program, _code, _end):
    """The kernels have no jump by a table here."""
    return ()


STEP = re.compile(r"(sub|add)\s+(sp|x\d+), (sp|x\d+), #(0x[0-9a-f]+|\d+)(?:, lsl #(\d+))?$")


def growth(function, i):
    """By how much the stack grows here."""
    instruction = function.code[i]
    if re.match(r"and\s+sp,", instruction.text):
        function.aligned = True
    if (step := stepped(instruction)) and step[1] == "sp":
        to, _, by = step
        if to == "sp":
            # A large frame is touched page by page, in a loop that ends at a register.
            return 0 if probes(function.code, i) else -by
        if by < 0 and ends_probes(function.code, i, to):
            return -by
    return instruction.pushes


def stepped(instruction):
    """What `add` or `sub` of a constant writes to, what it reads, and what it adds."""
    match = STEP.match(re.sub(r"\s*//.*$", "", instruction.text))
    if match is None:
        return None
    by = number(match.group(4)) << int(match.group(5) or 0)
    return match.group(2), match.group(3), by if match.group(1) == "add" else -by


def arithmetic(instruction):
    """What is done with constants and pointers: see `flow.after`."""
    text = re.sub(r"\s*//.*$", "", instruction.text)
    if match := re.match(r"mov\s+(x\d+), (sp|x\d+)$", text):
        return "copy", match.group(1), match.group(2), 0
    if step := stepped(instruction):
        return ("copy", *step) if step[0] != "sp" else None
    if match := re.match(r"add\s+(x\d+), (sp|x\d+), (x\d+)$", text):
        return "sum", *match.groups()
    if match := re.match(r"mov\s+[xw](\d+), #(-?\w+)$", text):
        return "number", f"x{match.group(1)}", number(match.group(2)) % 2**64
    if match := re.match(r"movk\s+[xw](\d+), #(\w+)(?:, lsl #(\d+))?$", text):
        return "upper", f"x{match.group(1)}", number(match.group(2)), int(match.group(3) or 0)
    return None


def probes(code, i):
    return i + 1 < len(code) and bool(re.match(r"cmp\s+sp, x\d+$", code[i + 1].text))


def ends_probes(code, i, to):
    """Whether the stack grows to this register: in such a loop, or to be aligned."""
    following = [instruction.text for instruction in code[i + 1 : i + 3]]
    return any(re.match(rf"(cmp\s+sp, {to}|and\s+sp, {to},)", text) for text in following)
