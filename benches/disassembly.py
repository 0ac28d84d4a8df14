#!/usr/bin/env python3
"""A lint of the compiled kernels: follows what `objdump` shows of them, from instruction to instruction.

    disassembly.py PROGRAM

PROGRAM is memcheck's, built with line tables, so that both look at the same code, as it ships. In each function of KERNELS

- no conditional jump depends on a secret, and no jump goes to a secret address;
- no address is made of a secret, be it of a load, a store, a gather or a copy;
- no secret is divided, nor divided by, and no square root is taken of one;
- the multiplications that the kernel is built on are there, and those of other kernels are not.

Every other function of these modules must stand in OTHERS. A leak for each rule is planted in `accel/src/bench.rs`: one that is not
reported is a failure, and so is a report about the one that is none. What is reported and harmless stands in JUDGED, by the line of
source that it comes from: a line that changes must be judged again.

# How a secret is known

Each register has a depth: how many loads away from it things are public. A number of depth 0 is public, and so is a pointer of depth 0,
but what is loaded through it is secret. Arguments are of depth 0 unless KERNELS says more of them. A result is as secret as its
operands, and so are flags; a place on the stack is what was stored there; loops are followed until nothing changes. So counters, lengths
and pointers stay public, and what comes out of memory is secret.

This is a lint and no proof. It looks at one function at a time: that a callee gets no secret where it expects none, and what is in
memory apart from the stack, it takes from the tables below. A place on the stack that is written to both by itself and through a pointer
is taken for what was written by itself. Both gaps are memcheck's, which sees what really happens to each bit, on the paths that are
taken. Here all paths are looked at, and AVX-512 as well, which valgrind's CPU does not run.
"""

import bisect
import functools
import itertools
import re
import struct
import subprocess
import sys

# ---- What is looked at ----

SECRET, DATA, REFERENCE, TABLE, MODULUS, PUBLIC = -1, 0, 1, 2, 8, 9

# Multiplications, and the additions that go with MULX.
MULX, ADX, MUL, SSE, AVX, IFMA = r"mulx", r"ad[co]x", r"i?mul", r"pmuludq", r"vpmuludq", r"vpmadd52[lh]uq"

# What the arguments are, by registers of the System V convention that Rust's own follows for numbers, references and slices.
OF_MODULUS = {"rdi": MODULUS}
OF_POWER = {"rdi": MODULUS, "rcx": REFERENCE}
OF_POWERS = {"rdi": TABLE}
OF_COMBS = {"rdi": MODULUS, "rdx": TABLE + 1}
OF_DIGIT = {"rdi": MODULUS, "rsi": REFERENCE}
SCALAR = [SSE, AVX, IFMA]


def lanes(module, vector, multiply, others):
    """A backend with lanes: its products, and what is built from them."""
    kernel = rf"<swarmseal_accel::lanes::{vector} as swarmseal_accel::lanes::Lanes>"
    inner = rf"swarmseal_accel::lanes::{module}"
    return [
        (rf"{kernel}::mont_(mul|sqr)::compiled", OF_MODULUS, [multiply], others),
        (rf"{inner}::mul_blocks(::compiled)?", OF_MODULUS, [], []),
        (rf"{inner}::modpow_batch(::compiled)?", OF_POWERS, [], []),
        (rf"{inner}::comb_pow(::compiled)?", OF_COMBS, [], []),
    ]


# Name, arguments, multiplications that must be there, and those that must not. With a backend's arithmetic compiled in, what is built
# from it has the backend's.
KERNELS = [
    (r"<swarmseal_accel::adx::Adx as .*>::mont_(mul|sqr)", OF_MODULUS, [MULX, "adcx", "adox"], SCALAR),
    (r"<swarmseal_accel::mul::Mul as .*>::mont_(mul|sqr)", OF_MODULUS, ["mul"], [MULX, ADX, *SCALAR]),
    (r"<swarmseal_core::kernels::portable::Portable as .*>::mont_(mul|sqr)", OF_MODULUS, ["mul"], [MULX, ADX, *SCALAR]),
    (r"<swarmseal_accel::(adx::Adx|mul::Mul) as .*>::mul_blocks", OF_MODULUS, [], SCALAR),
    (r"swarmseal_accel::fixed::mul_blocks", OF_MODULUS, ["mul"], SCALAR),
    *lanes("sse2", "sse2::Sse2", SSE, [MULX, ADX, AVX, IFMA]),
    *lanes("avx2", "avx2::Avx2", AVX, [ADX, IFMA]),
    *lanes("ifma", "ifma::Ifma", IFMA, [ADX]),
    *lanes("scalar::(halves|whole)", "scalar::Scalar<_,_>", MUL, [MULX, ADX, IFMA]),
    (r"swarmseal_core::kernels::scalar::(Arithmetic::)?mul_blocks", OF_MODULUS, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::modpow", OF_POWER, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::modpow_batch", OF_POWERS, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::comb_pow", OF_COMBS, [], SCALAR),
    (r"swarmseal_core::number::read_entry", {"rdx": SECRET}, [], []),
]

# The same, of what may as well be compiled into its callers.
PARTS = [
    (r"swarmseal_accel::fixed::lower", OF_MODULUS, ["mul"], [MULX, ADX, *SCALAR]),
    (r"swarmseal_core::kernels::scalar::CombShape::digit", OF_DIGIT, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::Accumulator::\w+", {"rsi": MODULUS}, [], SCALAR),
    (r"swarmseal_core::number::subtract_once", {"rdx": SECRET}, [], SCALAR),
]

# What no secret goes into.
OTHERS = [
    (r".*::(two_pow_batch_vartime|bit_length_vartime)(::compiled)?", "candidates for primes are public"),
    (r".*::(comb_fill|comb_words)(::compiled)?", "the bases of tables are public"),
    (r"swarmseal_accel::(list|detect|each|by_name|candidates|models).*", "which backend it is is public"),
    (r"swarmseal_accel::bench::ifma_.*", "timed on numbers of no meaning"),
    (r".* as core::(fmt|ops::drop|clone|iter)::.*", "prints, copies or wipes"),
    (r"swarmseal_core::kernels::(Kernels|scalar::CombShape)::(new|entries|portable|scalar)", "widths are public"),
]
OUR_MODULES = re.compile(r"<?(<?swarmseal_accel::|swarmseal_core::(kernels|number)::)")

# Reports that are none: a line of source, and why.
JUDGED = {
    (
        "accel/src/lanes.rs",
        "let unit = (0..count).all(|i| word64(modulus(i).limbs(), 0) & beta_less_1 == beta_less_1);",
    ): "a modulus is public",
    ("core-nostd/src/kernels/scalar.rs", "&mut self.rooms[self.at]"): "the parity of a public number of operations",
}

# What must be reported of the functions in accel/src/bench.rs.
PLANTED = {
    "branch": ({}, "branch"),
    "early_return": ({}, "branch"),
    "division": ({}, "division"),
    "index": ({}, "address"),
    "spilled": ({}, "address"),
    "gather": ({}, "address"),
    "none": ({"rdi": MODULUS, "rsi": REFERENCE}, None),
}


# ---- Reading objdump ----

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
FLAGS = ("cf", "zf", "of")
SIZES = {"BYTE": 1, "WORD": 2, "DWORD": 4, "QWORD": 8, "TBYTE": 10, "XMMWORD": 16, "YMMWORD": 32, "ZMMWORD": 64}
CONDITIONS = {
    **dict.fromkeys(["e", "ne", "s", "ns", "p", "np"], ("zf",)),
    **dict.fromkeys(["b", "ae"], ("cf",)),
    **dict.fromkeys(["a", "be"], ("cf", "zf")),
    **dict.fromkeys(["o", "no"], ("of",)),
    **dict.fromkeys(["l", "ge", "g", "le"], ("zf", "of")),
}


NO_RETURN = re.compile(r"panic|_fail(ed)?\b|len_mismatch|handle_alloc_error|unreachable")


class Program:
    """An executable: its functions as objdump shows them, and its bytes."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self.image = file.read()
        assert self.image[:6] == b"\x7fELF\x02\x01" and self.image[18:20] == b"\x3e\x00", "not a program for x86-64"
        (at,) = struct.unpack_from("<Q", self.image, 0x28)
        size, count = struct.unpack_from("<HH", self.image, 0x3A)
        sections = [struct.unpack_from("<IIQQQQ", self.image, at + i * size) for i in range(count)]
        self.sections = [
            (address, offset, length) for _, kind, _, address, offset, length in sections if address and kind != 8
        ]
        self.relocated = {}  # Of the global offset table.
        for _, kind, _, _, offset, length in sections:
            if kind == 4:
                for at in range(offset, offset + length, 24):
                    place, info, addend = struct.unpack_from("<QQq", self.image, at)
                    if info == 8:
                        self.relocated[place] = addend
        self.functions, self.names = [], {}
        self.read()

    def read(self):
        command = ["objdump", "-d", "-C", "--no-show-raw-insn", "-M", "intel", self.path]
        lines = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                address, tab, text = line.partition(":\t")
                if tab:
                    lines.append((int(address, 16), text.strip()))
                elif match := re.match(r"([0-9a-f]+) <(.*?)(?: ?\(?\.llvm\.\d+\)?)?>:$", line):
                    lines = []
                    self.names[int(match.group(1), 16)] = match.group(2)
                    self.functions.append((match.group(2), lines))
        assert process.returncode == 0, "objdump failed"

    def bytes(self, address, count):
        for start, offset, length in self.sections:
            if start <= address < start + length:
                return self.image[offset + address - start :][:count]
        return bytes(count)

    def called(self, instruction):
        """The name of what a call calls, as far as it stands in the program."""
        if match := re.search(r"rip.*# ([0-9a-f]+)", instruction.text):
            return self.names.get(self.relocated.get(int(match.group(1), 16)), instruction.text)
        return instruction.text


class Memory:
    """An operand in memory."""

    def __init__(self, text):
        size = re.search(r"(\w+) (?:PTR|BCST)", text)
        self.size = SIZES.get(size.group(1), 8) if size else 8
        self.base = self.index = None
        self.scale, self.displacement = 1, 0
        inside = re.search(r"\[(.*?)\]", text)
        if inside is None:  # An absolute address, of thread-local storage for instance.
            return
        for sign, term in re.findall(r"([+-]?)([^+-]+)", inside.group(1)):
            register, _, scale = term.partition("*")
            if register in REGISTERS or register == "rip":
                if self.base is None and scale in ("", "1"):
                    self.base = REGISTERS.get(register, register)
                else:
                    self.index, self.scale = REGISTERS[register], int(scale or 1)
            elif term not in ("riz", "eiz"):
                self.displacement += int(sign + term, 16)

    def registers(self):
        return [register for register in (self.base, self.index) if register not in (None, "rip")]

    def slot(self, frames, depth):
        """A constant place on the stack, if it is one. `depth`: bytes that the stack has grown by."""
        if self.base not in frames or self.index is not None:
            return None
        return self.base, self.displacement - (depth if self.base == "rsp" else 0)


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
LEAVES_FLAGS = re.compile(r"mov|lea|mulx|rorx|s[ah][lr]x|not$|bswap|xchg|pdep|pext")


class Instruction:
    """What an instruction reads and writes."""

    def __init__(self, address, text):
        self.address, self.text = address, text
        text = re.sub(r"\s*(#.*|<.*>)$", "", text)
        text = re.sub(r"^((lock|rep[nz]*|bnd|notrack|data16|cs|ds|addr32) )+", "", text)
        self.name, _, rest = text.partition(" ")
        operands = [operand.strip() for operand in re.split(r",(?![^\[]*\])", rest)] if rest.strip() else []
        self.reads, self.writes, self.flags_read, self.flags_written = [], [], (), ()
        self.memory, self.loads, self.stores = None, False, False
        self.depth = 0
        self.keeps = self.constant = self.narrow = self.is_call = False
        self.target = self.condition = None
        self.may_set_flags = self.strings = False
        name = self.name
        if name.startswith("j") or name.startswith("call"):
            self.decode_jump(operands)
            return
        masks = re.findall(r"\{(k\d)\}", rest)
        operands = [re.sub(r"\{[^}]*\}", "", operand) for operand in operands]
        if name == "lea":
            self.writes, self.memory = [REGISTERS[operands[0]]], Memory(operands[1])
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
            place = Memory("QWORD PTR [rsp-0x8]" if name == "push" else "QWORD PTR [rsp]")
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
        return Memory(operand) if "[" in operand or ":" in operand else None


class Function:
    """A function's instructions, and the blocks between its jumps."""

    def __init__(self, program, name, lines):
        self.name = name
        self.code = [Instruction(address, text) for address, text in lines]
        for instruction in self.code:
            instruction.ends = instruction.is_call and bool(NO_RETURN.search(program.called(instruction)))
        addresses = [instruction.address for instruction in self.code]
        starts = {0}
        for i, instruction in enumerate(self.code):
            if instruction.name.startswith(("j", "ret", "ud2")) or instruction.ends:
                starts.add(i + 1)
                if instruction.target is not None:
                    at = bisect.bisect_left(addresses, instruction.target)
                    if at < len(addresses) and addresses[at] == instruction.target:
                        starts.add(at)
        starts = sorted(start for start in starts if start < len(self.code))
        self.blocks = list(zip(starts, starts[1:] + [len(self.code)]))
        block_at = {addresses[start]: block for block, (start, _) in enumerate(self.blocks)}
        self.follows = []
        for block, (_, end) in enumerate(self.blocks):
            last = self.code[end - 1]
            follows = []
            if last.name.startswith("j") and last.target in block_at:
                follows.append(block_at[last.target])
            falls = not last.name.startswith(("ret", "ud2")) and last.name != "jmp" and not last.ends
            if falls and block + 1 < len(self.blocks):
                follows.append(block + 1)
            if last.name == "jmp" and last.target is None:
                follows = sorted({block_at[target] for target in self.table(program, end) if target in block_at})
            self.follows.append(follows)
        self.follow_stack()

    def table(self, program, end):
        """Where `jmp register` goes to: a table of distances from itself, whose address was taken before."""
        for instruction in reversed(self.code[max(0, end - 12) : end]):
            if instruction.name == "lea" and (match := re.search(r"# ([0-9a-f]+)", instruction.text)):
                start = int(match.group(1), 16)
                break
        else:
            return
        first, last = self.code[0].address, self.code[-1].address
        for entry in range(start, start + 4 * 256, 4):
            target = start + int.from_bytes(program.bytes(entry, 4), "little", signed=True)
            if not first <= target <= last:
                return
            yield target

    def follow_stack(self):
        """How far the stack has grown at each instruction, from block to block."""
        self.frames, self.aligned = {"rsp"}, False
        depths = {0: 0}
        waiting = [0]
        while waiting:
            block = waiting.pop()
            depth = depths[block]
            start, end = self.blocks[block]
            for i in range(start, end):
                instruction = self.code[i]
                instruction.depth = depth
                depth += self.growth(i)
            for follower in self.follows[block]:
                if follower not in depths:
                    depths[follower] = depth
                    waiting.append(follower)

    def growth(self, i):
        text = self.code[i].text
        if self.code[i].name == "push":
            return 8
        if self.code[i].name == "pop":
            return -8
        if re.match(r"mov +rbp,rsp", text):
            self.frames.add("rbp")
        if re.match(r"and +rsp,", text):
            self.aligned = True
        if match := re.match(r"(sub|add) +(rsp|r11),(0x[0-9a-f]+)", text):
            # A large frame is touched page by page, in a loop that ends at r11.
            page = i + 2 < len(self.code) and re.match(r"cmp +rsp,r11", self.code[i + 2].text)
            whole = i > 0 and re.match(r"mov +r11,rsp", self.code[i - 1].text)
            if not page and (match.group(2) == "rsp" or whole):
                return int(match.group(3), 16) * (1 if match.group(1) == "sub" else -1)
        return 0


# ---- Following secrets ----


class Analysis:
    """Depths of a function's registers at each instruction, and what goes against the rules."""

    def __init__(self, function, arguments, fields):
        self.function, self.fields = function, fields
        self.findings = {}
        self.entry = dict.fromkeys(REGISTERS.values(), DATA) | dict.fromkeys(FLAGS, PUBLIC) | arguments
        self.run()

    def run(self):
        function = self.function
        states = {0: self.entry}
        waiting = [0]
        while waiting:
            block = waiting.pop()
            state = dict(states[block])
            start, end = function.blocks[block]
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
        if memory.base == "rip":
            return MODULUS
        return self.sum([self.depth(state, register) for register in memory.registers()])

    @staticmethod
    def sum(depths):
        """Of a pointer and numbers, or of numbers."""
        if min(depths, default=PUBLIC) < 0:
            return SECRET
        return max((depth for depth in depths if depth != PUBLIC), default=PUBLIC)

    def load(self, memory, state, stack):
        slot = memory.slot(self.function.frames, stack)
        if slot is not None:
            frame, at = slot
            small = self.bytes(slot, memory.size)
            depths = [state[place] for place in small if place in state]
            if not depths or len(depths) < len(small):
                for word in self.words(slot, memory.size):
                    depths += [
                        state[place] for place in (word, *((*word, byte) for byte in range(8))) if place in state
                    ]
            if depths:
                return min(depths)
            beyond = at >= 16 if frame == "rbp" else at >= 8 and not self.function.aligned
            return DATA if beyond else SECRET
        if memory.base in self.function.frames:
            return SECRET
        if memory.base == "rip":
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

    @staticmethod
    def words(slot, size):
        """The words of the stack that a constant place touches."""
        frame, at = slot
        return [(frame, word) for word in range(at // 8, (at + size + 7) // 8)]

    @staticmethod
    def bytes(slot, size):
        """Its bytes, where it is smaller than a word: they are kept beside the word that they are part of."""
        frame, at = slot
        return [(frame, byte // 8, byte % 8) for byte in range(at, at + size)] if size < 8 else []

    def store(self, slot, size, depth, state):
        frame, at = slot
        if size < 8:
            state.update(dict.fromkeys(self.bytes(slot, size), depth))
            return
        for place in self.words(slot, size):
            whole = at <= place[1] * 8 and place[1] * 8 + 8 <= at + size
            if not whole:
                state[place] = min(depth, state.get(place, PUBLIC))
                continue
            state[place] = depth
            for byte in range(8):
                state.pop((*place, byte), None)

    def find(self, instruction, rule):
        self.findings[instruction.address] = (rule, instruction.text)

    def step(self, instruction, state):
        memory, name = instruction.memory, instruction.name
        if memory is not None and name != "lea" and self.address(memory, state) < 0:
            self.find(instruction, "address")
        if name.startswith("j") or name.startswith("call"):
            depth = self.lowest(state, [*instruction.reads, *(instruction.condition or ())])
            if memory is not None:
                depth = min(depth, self.load(memory, state, instruction.depth))
            if depth < 0:
                self.find(instruction, "branch")
            if instruction.is_call:
                if copies := re.search(r"mem(cpy|move|cmp|set)", instruction.text):
                    pointers = ["rdi"] if copies.group(1) == "set" else ["rdi", "rsi"]
                    if self.lowest(state, ["rdx", *pointers]) < 0:
                        self.find(instruction, "address")
                for register in CALL_CLOBBERS:
                    state[register] = SECRET
                    state.pop(("low", register), None)
            return
        if instruction.strings:
            if self.lowest(state, instruction.reads[: 3 if name == "movs" else 2]) < 0:
                self.find(instruction, "address")
            return
        if name == "lea":
            depth = self.address(memory, state)
        elif instruction.constant:
            depth = PUBLIC
        else:
            depths = [self.depth(state, register) for register in instruction.reads]
            if instruction.keeps:
                depths += [self.depth(state, register) for register in instruction.writes]
            if instruction.loads:
                depths.append(self.load(memory, state, instruction.depth))
            # A pointer and a number make a pointer.
            depth = self.sum(depths) if name in ("add", "sub") else min(depths, default=PUBLIC)
            depth = min([depth, *(state[flag] for flag in instruction.flags_read)])
        if depth < 0 and re.match(r"i?div$|v?div[sp]|v?f?sqrt|fdiv", name):
            self.find(instruction, "division")
        for register in instruction.writes:
            if register == "rsp":
                continue
            if isinstance(register, str):
                depth_before = self.depth(state, register)
                state.pop(("low", register), None)
                state[register] = min(depth, depth_before) if instruction.narrow else depth
            else:
                state[register] = depth
        if instruction.stores and (slot := memory.slot(self.function.frames, instruction.depth)):
            self.store(slot, memory.size, depth, state)
        for flag in instruction.flags_written:
            state[flag] = depth
        if instruction.may_set_flags:
            state.update((flag, min(depth, state[flag])) for flag in FLAGS)


# ---- Judging ----


def lines_of(program, addresses):
    """The lines of source that each instruction comes from, the innermost first."""
    names = [f"{address:#x}" for address in addresses]
    command = ["addr2line", "-e", program.path, "-i", "-a"]
    output = subprocess.run(command, input="\n".join(names), capture_output=True, text=True, check=True).stdout
    found, current = {}, None
    for line in output.splitlines():
        if line.startswith("0x"):
            current = found.setdefault(int(line, 16), [])
        elif match := re.match(r"(.*):(\d+)", line):
            current.append((match.group(1), int(match.group(2))))
    return found


def judged(lines):
    """The key of JUDGED that one of these lines has, if any."""
    for path, number in lines:
        for file, text in JUDGED:
            if path.endswith("/" + file) and source_line(path, number) == text:
                return file, text
    return None


@functools.cache
def source_line(path, number):
    with open(path, encoding="utf-8") as file:
        return next(itertools.islice(file, number - 1, number), "").strip()


def find_fields(program):
    """Where a modulus keeps its length and an exponent its width: what the functions do that return them."""
    fields = {}
    for name, lines in program.functions:
        if match := re.fullmatch(r"swarmseal_accel::bench::planted::(length|width)", name):
            loads = [i.memory for i in Function(program, name, lines).code if i.loads and i.memory.base == "rdi"]
            fields[match.group(1)] = loads[0].displacement
    assert len(fields) == 2, "the program lacks planted::length and planted::width"
    return set(fields.values())


def main():
    (path,) = sys.argv[1:]
    program = Program(path)
    fields = find_fields(program)
    failures, planted, seen, used = [], {}, set(), set()
    count = instructions = 0
    for name, lines in program.functions:
        if match := re.fullmatch(r"swarmseal_accel::bench::planted::(\w+)", name):
            if match.group(1) in PLANTED:
                findings = Analysis(Function(program, name, lines), PLANTED[match.group(1)][0], fields).findings
                planted[match.group(1)] = {rule for rule, _ in findings.values()}
            continue
        kernel = next((kernel for kernel in KERNELS + PARTS if re.fullmatch(kernel[0], name)), None)
        if kernel is None:
            if OUR_MODULES.match(name) and not any(re.fullmatch(pattern, name) for pattern, _ in OTHERS):
                failures.append(f"{name}: stands neither in KERNELS nor in OTHERS")
            continue
        pattern, arguments, needed, excluded = kernel
        seen.add(pattern)
        function = Function(program, name, lines)
        count, instructions = count + 1, instructions + len(lines)
        names = {instruction.name for instruction in function.code}
        for multiplication in needed:
            if not any(re.fullmatch(multiplication, other) for other in names):
                failures.append(f"{name}: has no {multiplication}")
        for multiplication in excluded:
            if strange := [other for other in names if re.fullmatch(multiplication, other)]:
                failures.append(f"{name}: has {', '.join(strange)}")
        findings = Analysis(function, arguments, fields).findings
        sources = lines_of(program, findings) if findings else {}
        for address, (rule, text) in sorted(findings.items()):
            if (key := judged(sources[address])) is not None:
                used.add(key)
                continue
            where = ", ".join(f"{source}:{number}" for source, number in sources[address] if "/rustc/" not in source)
            failures.append(f"{name}: {rule} at {address:x}: {text}\n    {where}")
    for name, (_, rule) in PLANTED.items():
        found = planted.get(name)
        if found is None or (rule is None and found) or (rule is not None and rule not in found):
            failures.append(f"planted {name}: {found} was reported, not {rule}")
    failures += [f"no function of this name: {pattern}" for pattern, *_ in KERNELS if pattern not in seen]
    for file, text in JUDGED:
        if (file, text) not in used:
            print(f"judged, and no longer reported: {file}: {text}")
    for failure in failures:
        print("FAIL ", failure)
    print(f"{count} functions, {instructions} instructions, {len(planted)} planted, {len(failures)} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
