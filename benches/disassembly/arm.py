"""32-bit ARM, as far as Thumb code has it."""

import re

import flow
from flow import MODULUS, Memory, number, split

MACHINE = 40  # Of ELF: EM_ARM.
OBJDUMP = ["arm-linux-gnueabihf-objdump"]
ADDR2LINE = "arm-linux-gnueabihf-addr2line"
THROUGH_POINTER = None

CORE = [f"r{n}" for n in range(13)] + ["lr"]
VECTORS = [f"d{n}" for n in range(32)]
ALL = {*CORE, "sp", "pc", *VECTORS}
KNOWN = {"pc": MODULUS}
ARGUMENTS = [f"r{n}" for n in range(4)]
RETURNS_THROUGH_ARGUMENT = True  # Its pointer is the first.
STACK = "sp"
ARGUMENTS_FROM = {STACK: 0}
WORD = 4
FLAGS = ("c", "nzv")
CALL_CLOBBERS = ["r0", "r1", "r2", "r3", "r12", "lr", *VECTORS[:8], *VECTORS[16:]]

CONDITIONS = {
    **dict.fromkeys(["eq", "ne", "mi", "pl", "vs", "vc", "ge", "lt", "gt", "le"], ("nzv",)),
    **dict.fromkeys(["cs", "hs", "cc", "lo"], ("c",)),
    **dict.fromkeys(["hi", "ls"], FLAGS),
}
ALIASES = {"sb": "r9", "sl": "r10", "fp": "r11", "ip": "r12"}

# From two operands; with one less, the result is the first of them.
BINARY = set(
    "add addw sub subw rsb adc sbc rsc and orr orn eor bic lsl lsr asr ror mul udiv sdiv"
    " pkhbt pkhtb uxtab uxtah sxtab sxtah".split()
)
UNARY = set("mov movw mvn neg clz rev rev16 rbit uxtb uxth sxtb sxth uxtb16 ubfx sbfx rrx adr".split())
KEEPS = {"movt", "bfi", "bfc"}
SUMS = {"add", "addw", "sub", "subw", "adr", "mla", "mls"}
LONG = {"umull", "smull", "umlal", "smlal", "umaal"}
COMPARES = {"cmp", "cmn", "tst", "teq"}
OTHERS = {"mla", "mls", "mrs", "msr", "b", "bl", "blx", "bx", "cbz", "cbnz", "tbb", "tbh"}
IDLE = re.compile(r"(nop|udf|dmb|dsb|isb|yield|svc|clrex|bkpt|pld|pldw|it[te]*)$")
PAIRS = {"ldrd", "strd"}
MULTIPLE = re.compile(r"(v?push|v?pop|v?(?:ld|st)m(?:ia|db)?)$")
BASES = (
    BINARY | UNARY | KEEPS | LONG | COMPARES | OTHERS | PAIRS
    | set("ldr ldrb ldrh ldrsb ldrsh str strb strh push pop ldm ldmia ldmdb stm stmia stmdb".split())
    | set("vmov vldr vstr vldmia vstmia vpush vpop vneg vadd".split())
)  # fmt: skip
SETTERS = BINARY | UNARY | {"mla"} | LONG
VECTOR_KEEPS = re.compile(r"v(ml[as]l?|r?sra|sli|sri|bit|bif|bsl|tbx|fma|fms)$")
VECTOR_PAIRS = re.compile(r"v(zip|uzp|trn|swp)$")
# What the compiler calls for what the CPU has no instruction for. The longer ones take and give two registers each.
HELPERS = re.compile(r"<__(?:aeabi_)?(u?i?l?u?(?:div|mod)\w*|lmul|ll[sa][lr]|lasr)(@plt)?>")


def registers(text):
    """The registers that an operand is made of: itself, and the one that it is shifted by."""
    found = []
    for name in re.split(r"[\s,]+", text):
        name = ALIASES.get(name.rstrip("!"), name.rstrip("!"))
        match = re.match(r"([dqs])(\d+)(\[\d*\])?$", name)
        if name in ALL:
            found.append(name)
        elif match:
            kind, n = match.group(1), int(match.group(2))
            found += [f"d{2 * n}", f"d{2 * n + 1}"] if kind == "q" else [f"d{n // 2 if kind == 's' else n}"]
    return found


def listed(text):
    """The registers of `{r4, r5, lr}` or `{d8-d15}`, and whether it is one element of each."""
    inside = text.strip("{}")
    found = []
    for part in inside.split(","):
        first, _, last = part.strip().partition("-")
        if last:
            kind, start, end = first[0], int(re.sub(r"\D", "", first)), int(re.sub(r"\D", "", last))
            for n in range(start, end + 1):
                found += registers(f"{kind}{n}")
        else:
            found += registers(first)
    return found, "[" in inside


def in_memory(text, size):
    """An operand in memory: `[r0]`, `[r0, #8]`, `[r0, r1, lsl #2]`, `[r0 :128]!`."""
    inside = re.sub(r":\d+", "", text.rstrip("!").strip("[]"))
    base, *rest = [part.strip() for part in inside.split(",")]
    (base,) = registers(base)
    memory = Memory(base, size=size)
    if base == "pc":
        memory.base, memory.fixed = None, True
        if rest and (index := registers(rest[0])):
            memory.fixed, memory.index = False, index[0]
    elif rest and rest[0].startswith("#"):
        memory.displacement = number(rest[0])
    elif rest:
        (memory.index,) = registers(rest[0])
    return memory


class Instruction(flow.Instruction):
    """What `objdump` shows of one. `name`: without condition, width and what sets flags."""

    def __init__(self, address, text, name, operands, condition, sets_flags):
        super().__init__(address, text, name)
        self.operands = operands
        self.sums = name in SUMS
        self.condition = None if condition is None else CONDITIONS[condition]
        if IDLE.match(name):
            self.falls = name != "udf"
            self.condition = None
            return
        if name in ("b", "bl", "blx", "bx", "cbz", "cbnz", "tbb", "tbh"):
            self.decode_jump(name, operands)
            return
        if any(operand.startswith("[") for operand in operands):
            self.decode_memory(name, operands)
        elif name.startswith("v"):
            self.decode_vector(name, operands)
        else:
            self.decode_core(name, operands, sets_flags)
        if self.condition is not None:
            self.under, self.flags_kept = condition, FLAGS
            self.flags_read = (*self.flags_read, *self.condition)

    def decode_jump(self, name, operands):
        self.is_call = name in ("bl", "blx")
        if helper := HELPERS.search(self.text):
            # No more than an instruction of many cycles.
            self.is_call, long = False, "l" in helper.group(1) and "div" in helper.group(1) or "di3" in helper.group(1)
            self.divides = bool(re.search("div|mod", helper.group(1)))
            self.reads = ARGUMENTS if long or not self.divides else ARGUMENTS[:2]
            self.writes, self.flags_written = [*ARGUMENTS, "r12", "lr"], FLAGS
            return
        if name == "bx" and operands == ["lr"]:
            self.falls = self.is_jump = self.condition is not None
            return
        self.is_jump = not self.is_call
        self.falls = self.is_call or self.condition is not None or name in ("cbz", "cbnz")
        if name in ("cbz", "cbnz"):
            self.condition, self.reads = (), registers(operands[0])
        elif name in ("tbb", "tbh"):
            # The table is code.
            self.reads = registers(operands[0].strip("[]"))[1:]
        elif name in ("bx", "blx") and (to := registers(operands[0])):
            self.reads = to
        if re.fullmatch(r"[0-9a-f]+", operands[-1]):
            self.target = int(operands[-1], 16)

    def decode_core(self, name, operands, sets_flags):
        found = [registers(operand) for operand in operands]
        first, rest = found[0], [register for some in found[1:] for register in some]
        if name in COMPARES:
            self.reads, self.flags_written = first + rest, FLAGS
        elif name == "mrs":
            self.writes, self.flags_read = first, FLAGS
        elif name == "msr":
            self.reads, self.flags_written = rest, FLAGS
        elif name in LONG:
            self.writes = first + found[1]
            self.reads = [register for some in found[2:] for register in some]
            self.keeps = name not in ("umull", "smull")
        else:
            self.writes, self.reads = first, rest
            shifted = operands[2:] and re.match(r"(lsl|lsr|asr|ror|rrx)\b", operands[2])
            self.keeps = (
                name in KEEPS or name in BINARY and (len(operands) == 2 or bool(shifted) and len(operands) == 3)
            )
            same = (
                len(operands) == 3 and operands[1] == operands[2] or len(operands) == 2 and operands[0] == operands[1]
            )
            self.constant = name in ("eor", "sub") and same
            if name in ("adc", "sbc", "rsc", "rrx"):
                self.flags_read = ("c",)
            self.divides = name in ("udiv", "sdiv")
            if first == ["pc"]:
                self.is_jump, self.falls = True, self.condition is not None
        if sets_flags:
            self.flags_written = FLAGS
            # The carry may stay, or be a bit that was shifted out.
            if name not in ("add", "sub", "rsb", "adc", "sbc", "rsc", "neg"):
                self.flags_kept = ("c",)

    def decode_vector(self, name, operands):
        found = [registers(operand) for operand in operands]
        if name == "vmrs":
            self.flags_written, self.reads = FLAGS, []
            self.constant = True
            return
        to = 2 if name == "vmov" and len(operands) == 3 and found[0][0] in CORE else 1
        if VECTOR_PAIRS.match(name):
            self.reads = self.writes = found[0] + found[1]
            return
        self.writes = [register for some in found[:to] for register in some]
        self.reads = [register for some in found[to:] for register in some]
        part = "[" in operands[0] or operands[0].startswith("s")
        self.keeps = bool(VECTOR_KEEPS.match(name)) or part
        self.constant = name in ("veor", "vsub") and len(operands) == 3 and operands[1] == operands[2]
        self.divides = name in ("vdiv", "vsqrt")

    def decode_memory(self, name, operands):
        at = next(i for i, operand in enumerate(operands) if operand.startswith("["))
        after = operands[at + 1 :]
        named, element = [], False
        for operand in operands[:at]:
            if operand.startswith("{"):
                some, element = listed(operand)
                named += some
            else:
                named += registers(operand)
        size = sum(8 if register in VECTORS else 4 for register in named)
        if match := re.match(r"(?:ld|st)rs?([bh])", name):
            size = 1 if match.group(1) == "b" else 2
        elif operands[0].startswith("s") and name in ("vldr", "vstr"):
            size = 4
        self.memory = in_memory(operands[at], size)
        if operands[at].endswith("!") or after:
            self.moved = self.memory.base
            if self.moved == STACK:
                self.pushes = -number(after[0]) if after else -self.memory.displacement
        if after and (step := registers(after[0])):
            self.memory.index = step[0]
        if re.match(r"v?st", name):
            self.stores, self.reads = True, named
            if re.match(r"strex", name):
                self.writes, self.reads = named[:1], named[1:]
        else:
            self.loads, self.writes = True, named
            self.keeps = element or size == 4 and named[0] in VECTORS
            if "pc" in named:
                self.is_jump, self.falls = True, self.condition is not None


def parsed(name):
    """A mnemonic without width and suffixes, its condition, and whether it sets flags; none if it is not known."""
    name = name.split(".")[0]
    if name in BASES or IDLE.match(name):
        return name, None, False
    if name[-1] == "s" and name[:-1] in SETTERS:
        return name[:-1], None, True
    base, condition = name[:-2], name[-2:]
    if condition in CONDITIONS:
        if base in BASES:
            return base, condition, False
        if base[-1:] == "s" and base[:-1] in SETTERS:
            return base[:-1], condition, True
    if name.startswith(("v", "ldrex", "strex", "pld")):
        return name, None, False
    return None


def decode(address, text):
    """The instructions of a line: that of several words is several, one for each."""
    mnemonic, operands = split(text, "@")
    if mnemonic.startswith(".") or (known := parsed(mnemonic)) is None:
        # Data behind a jump, or what has to be looked up.
        instruction = flow.Instruction(address, text, mnemonic)
        instruction.operands, instruction.unknown = operands, True
        return [instruction]
    name, condition, sets_flags = known
    if name in PAIRS:
        whole = Instruction(address, text, name, [operands[0], *operands[2:]], condition, False)
        named = [registers(operands[0])[0], registers(operands[1])[0]]
        return several(whole, named, condition, whole.memory.base, whole.memory.displacement)
    if match := MULTIPLE.match(name):
        kind = match.group(1)
        base = "sp" if "push" in kind or "pop" in kind else registers(operands[0])[0]
        named, _ = listed(operands[-1])
        widths = [8 if register in VECTORS else 4 for register in named]
        moves = "push" in kind or "pop" in kind or operands[0].endswith("!")
        down = "push" in kind or kind.endswith("db")
        stores = "push" in kind or "st" in kind
        whole = Instruction(address, text, "str" if stores else "ldr", ["r0", f"[{base}]"], condition, False)
        if moves:
            whole.moved = base
            whole.pushes = (sum(widths) if down else -sum(widths)) if base == STACK else 0
        return several(whole, named, condition, base, -sum(widths) if down else 0)
    return [Instruction(address, text, name, operands, condition, sets_flags)]


def several(whole, named, condition, base, displacement):
    """One access for each register, from `displacement` on."""
    parts = []
    for register in named:
        name = ("v" if register in VECTORS else "") + ("str" if whole.stores else "ldr")
        part = Instruction(whole.address, whole.text, name, [register, f"[{base}, #{displacement}]"], condition, False)
        part.memory.fixed, part.memory.base, part.memory.index = (
            whole.memory.fixed,
            whole.memory.base,
            whole.memory.index,
        )
        displacement += part.memory.size
        parts.append(part)
    # The base may be one of those that are loaded, and what is next another: they are last.
    if not whole.stores:
        parts.sort(key=lambda part: (part.writes == [base], part.is_jump))
        for part in parts[:-1]:
            part.falls = True
    parts[-1].moved, parts[-1].pushes = whole.moved, whole.pushes
    # Returns: what is loaded into pc was stored by the call.
    if parts[-1].is_jump and base == STACK:
        parts[-1].is_jump = parts[-1].condition is not None
    return parts


def table(program, code, end):
    """Where `tbb` and `tbh` go: so many halfwords from where the table stands, right behind them."""
    jump = code[end - 1]
    if jump.name not in ("tbb", "tbh"):
        return
    size, start = 1 if jump.name == "tbb" else 2, jump.address + 4
    entry, lowest = start, None
    while lowest is None or entry < lowest:
        target = start + 2 * int.from_bytes(program.bytes(entry, size), "little")
        if not start < target <= code[-1].address:
            return
        lowest = target if lowest is None else min(lowest, target)
        entry += size
        yield target


def growth(function, i):
    """By how much the stack grows here."""
    instruction = function.code[i]
    if instruction.name in ("add", "addw", "sub", "subw") and instruction.writes == ["sp"]:
        by = instruction.operands[-1]
        if by.startswith("#"):
            return number(by) * (1 if instruction.name.startswith("sub") else -1)
    if instruction.name == "mov" and instruction.writes == ["sp"]:
        # Aligned, by way of another register.
        for before in function.code[max(0, i - 4) : i]:
            if before.name in ("sub", "subw") and before.writes == instruction.reads and before.operands[1] == "sp":
                function.aligned = True
                return number(before.operands[2])
    return instruction.pushes


def arithmetic(instruction):
    """What is done with constants and pointers: see `flow.after`."""
    name, operands = instruction.name, instruction.operands
    if instruction.condition is not None or not operands or instruction.memory is not None:
        return None
    to = registers(operands[0])
    if name in ("mov", "movw") and len(operands) == 2:
        if operands[1].startswith("#"):
            return "number", to[0], number(operands[1]) % 2**32
        if (source := registers(operands[1])) and to != ["sp"]:
            return "copy", to[0], source[0], 0
    if name == "movt" and len(operands) == 2:
        return "upper", to[0], number(operands[1]), 16
    if name in ("add", "addw", "sub", "subw") and to != ["sp"] and len(operands) in (2, 3):
        source, by = registers(operands[-2]), operands[-1]
        if by.startswith("#"):
            return "copy", to[0], source[0], number(by) * (-1 if name.startswith("sub") else 1)
        if name in ("add", "addw") and re.fullmatch(r"\w+", by) and source and registers(by):
            return "sum", to[0], source[0], registers(by)[0]
    return None
