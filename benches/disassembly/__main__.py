"""A lint of the compiled kernels: follows what `objdump` shows of them, from instruction to instruction.

    disassembly PROGRAM

PROGRAM is for x86-64, AArch64 or Thumb, built with line tables: memcheck's, so that both look at the same code, as it ships, or where
memcheck does not run the example `backends` of `accel`. In each function of KERNELS

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
taken. Here all paths are looked at, and what valgrind's CPU does not run as well: AVX-512, AArch64, ARM.
"""

import functools
import itertools
import re
import subprocess
import sys

from flow import MODULUS, REFERENCE, RETURNED, SECRET, TABLE, Analysis, Function
from program import Program

# ---- What is looked at ----

# Multiplications, and the additions that go with MULX.
MULX, ADX, SSE, AVX, IFMA = r"mulx", r"ad[co]x", r"pmuludq", r"vpmuludq", r"vpmadd52[lh]uq"
UMULH, NEON = r"umulh", r"vum(ul|la)l2?"
# On any machine.
MUL = r"i?mul|um[ul]l?al|umull|madd|umaddl"

# What the arguments are, by their number: a slice is two. Rust's convention is C's for numbers, references and slices; RETURNED where
# the result does not fit registers.
OF_MODULUS = {0: MODULUS}
OF_POWER = {0: MODULUS, 3: REFERENCE}
OF_POWERS = {0: TABLE}
OF_COMBS = {0: MODULUS, 2: TABLE + 1}
OF_DIGIT = {0: MODULUS, 1: REFERENCE}
SCALAR = [SSE, AVX, IFMA, NEON]


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
FIXED = (r"swarmseal_accel::fixed::mul_blocks", OF_MODULUS, ["mul"], SCALAR)
OWN = {
    "x86_64": [
        (r"<swarmseal_accel::adx::Adx as .*>::mont_(mul|sqr)", OF_MODULUS, [MULX, "adcx", "adox"], SCALAR),
        (r"<swarmseal_accel::mul::Mul as .*>::mont_(mul|sqr)", OF_MODULUS, ["mul"], [MULX, ADX, *SCALAR]),
        (r"<swarmseal_accel::(adx::Adx|mul::Mul) as .*>::mul_blocks", OF_MODULUS, [], SCALAR),
        *lanes("sse2", "sse2::Sse2", SSE, [MULX, ADX, AVX, IFMA]),
        *lanes("avx2", "avx2::Avx2", AVX, [ADX, IFMA]),
        *lanes("ifma", "ifma::Ifma", IFMA, [ADX]),
        FIXED,
    ],
    "aarch64": [
        (r"<swarmseal_accel::umulh::Umulh as .*>::mont_(mul|sqr)", OF_MODULUS, ["mul", UMULH, "adcs"], SCALAR),
        (r"<swarmseal_accel::umulh::Umulh as .*>::mul_blocks", OF_MODULUS, [], SCALAR),
        *lanes("neon", "neon::Neon", NEON, []),
        FIXED,
    ],
    "arm": [
        (r"<swarmseal_accel::umaal::Umaal as .*>::mont_(mul|sqr)", OF_MODULUS, ["umaal"], []),
        (r"<swarmseal_accel::umaal::Umaal as .*>::mul_blocks", OF_MODULUS, [], []),
    ],
}
# On every machine.
KERNELS = [
    (r"<swarmseal_core::kernels::portable::Portable as .*>::mont_(mul|sqr)", OF_MODULUS, [MUL], [MULX, ADX, *SCALAR]),
    *lanes("scalar::(halves|whole)", "scalar::Scalar<_, ?_>", MUL, [MULX, ADX, IFMA]),
    (r"(swarmseal_core::kernels::scalar(::Arithmetic)?|<.*Portable as .*>)::mul_blocks", OF_MODULUS, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::modpow", OF_POWER, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::modpow_batch", OF_POWERS, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::comb_pow", OF_COMBS, [], SCALAR),
    (r"swarmseal_core::number::read_entry", {2: SECRET}, [], []),
]

# The same, of what may as well be compiled into its callers.
PARTS = [
    (r"swarmseal_accel::fixed::lower", OF_MODULUS, ["mul"], [MULX, ADX, *SCALAR]),
    (r"swarmseal_core::kernels::scalar::CombShape::digit", OF_DIGIT, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::Accumulator::one", {RETURNED: True, 0: MODULUS}, [], SCALAR),
    (r"swarmseal_core::kernels::scalar::Accumulator::\w+", {1: MODULUS}, [], SCALAR),
    (r"swarmseal_core::number::subtract_once", {2: SECRET}, [], SCALAR),
]

# What no secret goes into.
OTHERS = [
    (r".*::(two_pow_batch_vartime|bit_length_vartime)(::compiled)?", "candidates for primes are public"),
    (r".*::(comb_fill|comb_words)(::compiled)?", "the bases of tables are public"),
    (r"<?swarmseal_accel::(list|detect|each|by_name|candidates|models).*", "which backend it is is public"),
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

# Arguments, what must be reported of the functions in accel/src/bench.rs, and the only machine that has one.
PLANTED = {
    "branch": ({}, "branch", None),
    "early_return": ({}, "branch", None),
    "division": ({}, "division", None),
    "index": ({}, "address", None),
    "spilled": ({}, "address", None),
    "gather": ({}, "address", "x86_64"),
    "none": ({0: MODULUS, 1: REFERENCE}, None, None),
}


# ---- Judging ----


def lines_of(program, addresses):
    """The lines of source that each instruction comes from, the innermost first."""
    names = [f"{address:#x}" for address in addresses]
    command = [program.architecture.ADDR2LINE, "-e", program.path, "-i", "-a"]
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
    fields, argument = {}, program.architecture.ARGUMENTS[0]
    for name, lines in program.functions:
        if match := re.fullmatch(r"swarmseal_accel::bench::planted::(length|width)", name):
            loads = [i.memory for i in Function(program, name, lines).code if i.loads and i.memory.base == argument]
            fields[match.group(1)] = loads[0].displacement
    assert len(fields) == 2, "the program lacks planted::length and planted::width"
    return set(fields.values())


def main():
    (path,) = sys.argv[1:]
    program = Program(path)
    machine, fields = program.architecture.__name__, find_fields(program)
    kernels = OWN[machine] + KERNELS
    to_plant = {name: case for name, case in PLANTED.items() if case[2] in (None, machine)}
    failures, planted, seen, used = [], {}, set(), set()
    count = instructions = 0
    for name, lines in program.functions:
        if match := re.fullmatch(r"swarmseal_accel::bench::planted::(\w+)", name):
            if match.group(1) in to_plant:
                findings = Analysis(Function(program, name, lines), to_plant[match.group(1)][0], fields).findings
                planted[match.group(1)] = {rule for rule, _ in findings.values()}
            continue
        kernel = next((kernel for kernel in kernels + PARTS if re.fullmatch(kernel[0], name)), None)
        if kernel is None:
            if OUR_MODULES.match(name) and not any(re.fullmatch(pattern, name) for pattern, _ in OTHERS):
                failures.append(f"{name}: stands neither in KERNELS nor in OTHERS")
            continue
        pattern, arguments, needed, excluded = kernel
        seen.add(pattern)
        function = Function(program, name, lines)
        count, instructions = count + 1, instructions + len(lines)
        names = {instruction.operation for instruction in function.code}
        for multiplication in needed:
            if not any(re.fullmatch(multiplication, other) for other in names):
                failures.append(f"{name}: has no {multiplication}")
        for multiplication in excluded:
            if strange := [other for other in names if re.fullmatch(multiplication, other)]:
                failures.append(f"{name}: has {', '.join(strange)}")
        failures += [f"{name}: where does it go at {jump.address:x}: {jump.text}" for jump in function.not_followed]
        findings = Analysis(function, arguments, fields).findings
        sources = lines_of(program, findings) if findings else {}
        for address, (rule, text) in sorted(findings.items()):
            if (key := judged(sources[address])) is not None:
                used.add(key)
                continue
            where = ", ".join(f"{source}:{number}" for source, number in sources[address] if "/rustc/" not in source)
            failures.append(f"{name}: {rule} at {address:x}: {text}\n    {where}")
    for name, (_, rule, _) in to_plant.items():
        found = planted.get(name)
        if found is None or (rule is None and found) or (rule is not None and rule not in found):
            failures.append(f"planted {name}: {found} was reported, not {rule}")
    failures += [f"no function of this name: {pattern}" for pattern, *_ in kernels if pattern not in seen]
    for file, text in JUDGED:
        if (file, text) not in used:
            print(f"judged, and no longer reported: {file}: {text}")
    for failure in failures:
        print("FAIL ", failure)
    print(
        f"{machine}: {count} functions, {instructions} instructions, {len(planted)} planted, {len(failures)} failures"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
