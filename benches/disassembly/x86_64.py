"""x86-64, in Intel's syntax."""

import bisect
import re

import flow
from flow import Memory

MACHINE, RELATIVE = 0x3E, 8  # Of ELF: EM_X86_64, R_X86_64_RELATIVE.
OBJDUMP = ["objdump", "-M", "intel"]
ADDR2LINE = "addr2line"
THROUGH_POINTER = re.compile(r"rip.*# ([0-9a-f]+)")

REGISTERS = {}
for letter in "abcd":
    for name in (f"r{letter}x", f"e{letter}x", f"{letter}x", f"{letter}l", f"{letter}h"):
        REGISTERS[name] = f"r{letter}x"
for letters in ("si", "di", "sp", "bp"):
    for name in (f"r{letters}", f"e{letters}", letters, f"{letters}l"):
        REGISTERS[name] = f"r{letters}"
for number in range(8, 16):
    for suffix in ("", "d", "w", "b"):
        REGISTERS[f"r{number}{suffix}"] = f"r{number}"
for number in range(32):
    for width in "xyz":
        REGISTERS[f"{width}mm{number}"] = f"v{number}"
for number in range(8):
    REGISTERS[f"k{number}"] = f"k{number}"
LOW = {name for name in REGISTERS if re.fullmatch(r"[abcd]l|(si|di|sp|bp)l|r\d+b", name)}
NARROW = {name for name in REGISTERS if re.fullmatch(r"[abcd][hx]|si|di|sp|bp|r\d+w", name)}
CALL_CLOBBERS = [
    "rax",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    *(f"v{n}" for n in range(32)),
    *(f"k{n}" for n in range(8)),
]
ALL = set(REGISTERS.values())
ARGUMENTS = ["rdi", "rsi", "rdx", "rcx", "r8", "r9"]
RETURNS_THROUGH_ARGUMENT = True  # Its pointer is the first.
STACK = "rsp"
ARGUMENTS_FROM = {STACK: 8, "rbp": 16}
WORD = 8
KNOWN = {}
FLAGS = ("cf", "zf", "of")
SIZES = {"BYTE": 1, "WORD": 2, "DWORD": 4, "QWORD": 8, "TBYTE": 10, "XMMWORD": 16, "YMMWORD": 32, "ZMMWORD": 64}
CONDITIONS = {
    **dict.fromkeys(["e", "ne", "s", "ns", "p", "np"], ("zf",)),
    **dict.fromkeys(["b", "ae"], ("cf",)),
    **dict.fromkeys(["a", "be"], ("cf", "zf")),
    **dict.fromkeys(["o", "no"], ("of",)),
    **dict.fromkeys(["l", "ge", "g", "le"], ("zf", "of")),
}


def in_memory(text):
    """An operand in memory."""
    size = re.search(r"(\w+) (?:PTR|BCST)", text)
    memory = Memory(size=SIZES.get(size.group(1), 8) if size else 8)
    inside = re.search(r"\[(.*?)\]", text)
    if inside is None:  # An absolute address, of thread-local storage for instance.
        return memory
    for sign, term in re.findall(r"([+-]?)([^+-]+)", inside.group(1)):
        register, _, scale = term.partition("*")
        if register == "rip":
            memory.fixed = True
        elif register in REGISTERS:
            if memory.base is None and scale in ("", "1"):
                memory.base = REGISTERS[register]
            else:
                memory.index = REGISTERS[register]
        elif term not in ("riz", "eiz"):
            memory.displacement += int(sign + term, 16)
    return memory


COMPARES = re.compile(r"cmp$|test$|bt$|v?ptest|vtest|v?u?comis|k(or)?test")
MOVES = re.compile(
    r"v?mov|v?lddqu|v?p?broad|vp?broad|kmov|v?pextr|v?pmov|rorx|pshuf[dhl]|set|lzcnt|tzcnt|popcnt|vextract|v?pabs|vperm(q|pd)$|vpshuf[dhl]|vsqrt|vcvt|bs[fr]"
)
# Moves that leave half of what they write to, unless they load.
HALVES = re.compile(r"mov(lh|hl|h|l)p[sd]|movs[sd]$")
ACCUMULATES = re.compile(r"vpmadd52|vfn?m|vpternlog|vperm[ti]2|vpdp")
SETS_FLAGS = re.compile(
    r"(add|sub|adc|sbb|and|or|xor|neg|i?mul|sh[lr]d?|sa[lr]|ro[lr]|rc[lr]|bt[rsc]|bs[fr]|[lt]zcnt|popcnt|andn|bls\w+|bextr|bzhi|i?div|x?add)$"
)
DIVIDES = re.compile(r"i?div$|v?div[sp]|v?f?sqrt|fdiv")
LEAVES_FLAGS = re.compile(r"mov|lea|mulx|rorx|s[ah][lr]x|not$|bswap|xchg|pdep|pext")


class Instruction(flow.Instruction):
    """What `objdump` shows of one."""

    def __init__(self, address, text):
        shown = text
        text = re.sub(r"\s*(#.*|<.*>)$", "", text)
        text = re.sub(r"^((lock|rep[nz]*|bnd|notrack|data16|cs|ds|addr32) )+", "", text)
        name, _, rest = text.partition(" ")
        super().__init__(address, shown, name)
        operands = [operand.strip() for operand in re.split(r",(?![^\[]*\])", rest)] if rest.strip() else []
        self.sums, self.divides = name in ("add", "sub"), bool(DIVIDES.match(name))
        self.falls = not name.startswith(("ret", "ud2")) and name != "jmp"
        if name.startswith(("j", "call")):
            self.decode_jump(operands)
            return
        masks = re.findall(r"\{(k\d)\}", rest)
        operands = [re.sub(r"\{[^}]*\}", "", operand) for operand in operands]
        if name == "lea":
            self.writes, self.memory, self.is_address = [REGISTERS[operands[0]]], in_memory(operands[1]), True
            return
        if (
            name.startswith(
                (
                    "nop",
                    "endbr",
                    "prefetch",
                    "hlt",
                    "ud2",
                    "ret",
                    "leave",
                    "vzero",
                    "mfence",
                    "lfence",
                    "cpuid",
                    "xgetbv",
                    "int3",
                )
            )
            or not operands
            and name not in ("cdq", "cqo", "cdqe", "cwde")
        ):
            return
        kinds = [self.register_or_memory(operand) for operand in operands]
        first = kinds[0] if kinds else None
        sources = kinds[1:]
        compares = COMPARES.match(name)
        # Whether the first operand is only written to, or read as well. An immediate is none of the kinds.
        vectors = any(isinstance(kind, str) and kind[0] in "vk" for kind in kinds)
        if len(operands) < 3:
            overwrites = MOVES.match(name) and not (
                HALVES.match(name) and not any(isinstance(kind, Memory) for kind in sources)
            )
        else:
            overwrites = not ACCUMULATES.match(name) and (name[0] == "v" or not vectors or MOVES.match(name))
            overwrites = overwrites and not re.match(r"sh[lr]d", name)
        if name in ("mul", "div", "idiv", "imul") and len(operands) == 1:
            self.reads, self.writes = ["rax", "rdx"] if "div" in name else ["rax"], ["rax", "rdx"]
            sources, first = kinds, None
        elif name == "mulx":
            self.reads, self.writes = ["rdx"], [kinds[0], kinds[1]]
            sources, first = kinds[2:], None
        elif name in ("cdq", "cqo"):
            self.reads, self.writes, sources, first = ["rax"], ["rdx"], [], None
        elif name in ("cdqe", "cwde"):
            return
        elif name in ("push", "pop"):
            place = Memory("rsp", displacement=-8 if name == "push" else 0)
            self.memory, self.stores, self.loads = place, name == "push", name == "pop"
            if first is not None and not isinstance(first, Memory):
                (self.reads if name == "push" else self.writes).append(first)
            return
        elif name in ("stos", "movs"):
            self.reads = ["rcx", "rdi", "rsi"]
            self.strings = True
            return
        elif name in ("xchg", "xadd"):
            self.reads = self.writes = [kind for kind in kinds if not isinstance(kind, Memory)]
            for kind in kinds:
                if isinstance(kind, Memory):
                    self.memory, self.loads, self.stores = kind, True, True
            return
        if first is not None:
            if compares:
                sources = kinds
            elif isinstance(first, Memory):
                self.memory, self.stores = first, True
                self.loads = not overwrites or bool(masks)
            else:
                self.writes = [first]
                self.narrow = operands[0] in NARROW
                self.keeps = not overwrites
            if masks:
                self.keeps = True
        for source in sources:
            if isinstance(source, Memory):
                self.memory, self.loads = source, True
            elif source is not None:
                self.reads.append(source)
        self.reads += masks
        same = len(operands) >= 2 and operands[-1] == operands[-2]
        if (
            same
            and re.match(r"xor|sub$|v?pxor|v?xorp|v?pcmpeq|v?psub|kxn?or", name)
            and operands[0] in (operands[-1], *operands[: len(operands) == 3])
            and "[" not in rest
        ):
            self.constant = True
        self.decode_flags(compares, vectors)

    def decode_jump(self, operands):
        self.is_call = self.name.startswith("call")
        self.is_jump = not self.is_call
        if re.fullmatch(r"[0-9a-f]+", operands[0]):
            self.target = int(operands[0], 16)
        else:
            kind = self.register_or_memory(operands[0])
            if isinstance(kind, Memory):
                self.memory, self.loads = kind, True
            else:
                self.reads = [kind]
        if self.name in ("jrcxz", "jecxz"):
            self.condition, self.reads = (), ["rcx"]
        elif self.name[1:] in CONDITIONS:
            self.condition = CONDITIONS[self.name[1:]]

    def decode_flags(self, compares, vectors):
        name = self.name
        if name in ("adc", "sbb", "rcl", "rcr", "cmc"):
            self.flags_read = ("cf",)
        elif name == "adcx":
            self.flags_read, self.flags_written = ("cf",), ("cf",)
            return
        elif name == "adox":
            self.flags_read, self.flags_written = ("of",), ("of",)
            return
        elif match := re.match(r"(set|cmov)(\w+)", name):
            self.flags_read = CONDITIONS.get(match.group(2), FLAGS)
            return
        if name in ("inc", "dec"):
            self.flags_written = ("zf", "of")
        elif compares or SETS_FLAGS.match(name):
            self.flags_written = FLAGS
        else:
            self.may_set_flags = not vectors and not LEAVES_FLAGS.match(name)

    @staticmethod
    def register_or_memory(operand):
        if operand in REGISTERS:
            return ("low", REGISTERS[operand]) if operand in LOW else REGISTERS[operand]
        return in_memory(operand) if "[" in operand or ":" in operand else None


def decode(address, text):
    """The instruction of a line."""
    return [Instruction(address, text)]


def table(program, code, end):
    """Where `jmp register` goes to: a table of distances from itself, whose address was taken before."""
    for instruction in reversed(code[max(0, end - 12) : end]):
        if instruction.name == "lea" and (match := re.search(r"# ([0-9a-f]+)", instruction.text)):
            start = int(match.group(1), 16)
            break
    else:
        return
    first, last = code[0].address, code[-1].address
    # Another one may follow it.
    at = bisect.bisect_right(program.referenced, start)
    end = min([start + 4 * 256, *program.referenced[at : at + 1]])
    for entry in range(start, end, 4):
        target = start + int.from_bytes(program.bytes(entry, 4), "little", signed=True)
        if not first <= target <= last:
            return
        yield target


def growth(function, i):
    """By how much the stack grows here."""
    text = function.code[i].text
    if function.code[i].name == "push":
        return 8
    if function.code[i].name == "pop":
        return -8
    if re.match(r"mov +rbp,rsp", text):
        function.frames.add("rbp")
    if re.match(r"and +rsp,", text):
        function.aligned = True
    if match := re.match(r"(sub|add) +(rsp|r11),(0x[0-9a-f]+)", text):
        # A large frame is touched page by page, in a loop that ends at r11.
        page = i + 2 < len(function.code) and re.match(r"cmp +rsp,r11", function.code[i + 2].text)
        whole = i > 0 and re.match(r"mov +r11,rsp", function.code[i - 1].text)
        if not page and (match.group(2) == "rsp" or whole):
            return int(match.group(3), 16) * (1 if match.group(1) == "sub" else -1)
    return 0


def arithmetic(_instruction):
    """The compiler has one register for a frame here, whose places are kept apart: no other that points into the stack is followed."""
    return None
