"""The lattice attack on the paper's encoding: one intercepted ciphertext piece, and nothing else, gives the plaintext.

    python3 -m venv venv && venv/bin/pip install fpylll==0.6.4 cysignals
    venv/bin/python lattice.py film.torrent pieces.bin --piece 0 --output opened.bin
    venv/bin/python lattice.py --group prime512 piece.bin      (a single sealed piece over that group, of `examples/sealed_toy.rs`)

`pieces.bin` holds ciphertext pieces as a peer stores or receives them, one after another. Under the profile `paper` every block is a
number below 2^(n-8) times one unknown K mod p. With ρ_b = c_b / c_1, the blocks (m_1, ..., m_d) are a vector of the lattice

    { (x, x ρ_2 - k_2 p, ..., x ρ_d - k_d p) : x, k_b integers }     of volume p^(d-1)

and far shorter than its other vectors once d bits of slack outweigh p: LLL and BKZ find it. A guess is proved by decrypting all blocks
with K = c_1 / m_1: under a wrong K some block would not be below 2^(n-8).

Under `sealed` the blocks have no slack, so the lattice has no short vector to find: the same search ends with nothing. Exit code: 0 if
the piece was opened, 3 if nothing was found, 2 if the arguments are wrong.
"""

import argparse
import hashlib
import json
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


class Failure(Exception):
    pass


def decode(data, at=0):
    """Bencode; a value and where it ends."""
    lead = data[at : at + 1]
    if lead == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if lead in (b"l", b"d"):
        items, at = [], at + 1
        while data[at : at + 1] != b"e":
            item, at = decode(data, at)
            items.append(item)
        return (items if lead == b"l" else dict(zip(items[::2], items[1::2]))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    if end > len(data):
        raise ValueError("cut short")
    return data[colon + 1 : end], end


def named_prime(name):
    groups = json.loads((HERE.parent / "vectors" / "groups.json").read_text())
    found = [entry for entry in groups if entry["name"] == name]
    if not found:
        raise Failure(f"the group {name!r} is not known: expected one of {', '.join(entry['name'] for entry in groups)}")
    return int(found[0]["p"], 16)


class Sealed:
    """One sealed piece over any group."""

    profile, order, hashes = "sealed", "little", [b""]

    def __init__(self, group, length):
        self.group, self.p, self.piece_length = group, named_prime(group), length
        self.width = (self.p.bit_length() + 7) // 8

    def blocks(self, piece):
        return Torrent.blocks(self, piece)


class Torrent:
    def __init__(self, path):
        try:
            info = decode(path.read_bytes())[0][b"info"]
            seal = info[b"swarmseal"]
            self.profile = seal[b"profile"].decode()
            self.piece_length = info[b"piece length"]
            hashes = info[b"pieces"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failure(f"{path}: no Swarmseal torrent: {error!r}")
        self.hashes = [hashes[at : at + 20] for at in range(0, len(hashes), 20)]
        group = seal[b"group"]
        if isinstance(group, dict):
            self.group, self.p = "in full", int.from_bytes(group[b"p"], "big")
        else:
            self.group = group.decode()
            self.p = named_prime(self.group)
        self.width = (self.p.bit_length() + 7) // 8
        self.order = "big" if self.profile == "paper" else "little"

    def blocks(self, piece):
        return [
            int.from_bytes(piece[at : at + self.width], self.order) for at in range(0, len(piece), self.width)
        ]


def basis(ratios, p, centre):
    """Rows that span the ratios' lattice, and one that moves its vector to the middle of the range (Kannan's embedding)."""
    from fpylll import IntegerMatrix

    d = len(ratios)
    rows = IntegerMatrix(d + 1, d + 1)
    for column, ratio in enumerate(ratios):
        rows[0, column] = ratio
    for row in range(1, d):
        rows[row, row] = p
    for column in range(d):
        rows[d, column] = -centre
    # As long as a coordinate of the vector that is sought is on average.
    rows[d, d] = centre * 577 // 1000
    return rows


# Of each number of a reduced basis: more than tell its rows apart, and few enough that machine words hold their sums.
KEPT_BITS = 40
# Of BKZ at one block size, each over what the one before left.
ROUNDS = 16


def reduce_blocks(matrix, size):
    """One round of BKZ over a basis that LLL has reduced.

    All of its rows are of about the same length, and their top bits say which combination of them is short: BKZ works on machine words,
    and what it did is done again to the long numbers. Whether it changed anything.
    """
    from fpylll import BKZ, GSO, IntegerMatrix, LLL
    from fpylll.fplll.bkz import BKZReduction

    rows = [[matrix[row, column] for column in range(matrix.ncols)] for row in range(matrix.nrows)]
    shift = max(0, max(abs(entry) for row in rows for entry in row).bit_length() - KEPT_BITS)
    short = IntegerMatrix(matrix.nrows, matrix.ncols, int_type="long")
    for row, entries in enumerate(rows):
        for column, entry in enumerate(entries):
            short[row, column] = entry >> shift
    done = IntegerMatrix.identity(matrix.nrows, int_type="long")
    gso = GSO.Mat(short, U=done, float_type="double")
    lll = LLL.Reduction(gso)
    lll()
    BKZReduction(gso, lll, BKZ.Param(block_size=size, flags=BKZ.AUTO_ABORT | BKZ.MAX_LOOPS, max_loops=8))()
    changed = False
    for row in range(matrix.nrows):
        factors = [(done[row, of], rows[of]) for of in range(matrix.nrows) if done[row, of]]
        changed |= factors != [(1, rows[row])]
        for column in range(matrix.ncols):
            matrix[row, column] = sum(factor * entries[column] for factor, entries in factors)
    return changed


def candidates(matrix, centre):
    """What each row says the first block is."""
    for row in range(matrix.nrows):
        for sign in (1, -1):
            yield sign * matrix[row, 0] + centre
            yield sign * matrix[row, 0]


def search(blocks, torrent, dimension, block_sizes, say):
    """K, or nothing."""
    from fpylll import LLL

    p, bound = torrent.p, 1 << 8 * (torrent.width - 1)
    used = [block for block in blocks if block % p][:dimension]
    if len(used) < dimension:
        raise Failure(f"the piece has {len(used)} blocks that are not zero: expected at least {dimension}")
    inverse = pow(used[0], -1, p)
    centre = bound // 2
    matrix = basis([block * inverse % p for block in used], p, centre)

    def opened():
        for first in candidates(matrix, centre):
            if not 0 < first < bound:
                continue
            factor = first * inverse % p
            if all(block * factor % p < bound for block in blocks):
                return factor
        return None

    say("LLL")
    LLL.reduction(matrix)
    found = opened()
    for size in block_sizes:
        if found is not None:
            break
        say(f"BKZ {size}")
        for _ in range(ROUNDS):
            if found is not None or not reduce_blocks(matrix, size):
                break
            found = opened()
    return found


def parse(arguments):
    parser = argparse.ArgumentParser(description="Opens a ciphertext piece of the profile `paper` without any key.")
    parser.add_argument("torrent", type=pathlib.Path, nargs="?", help="the .torrent; without it, --group")
    parser.add_argument("--group", metavar="NAME", help="the pieces' file is one sealed piece over this group")
    parser.add_argument("pieces", type=pathlib.Path, help="ciphertext pieces, one after another")
    parser.add_argument("--piece", type=int, default=0, help="which of them")
    parser.add_argument("--output", type=pathlib.Path, help="where to write the plaintext")
    parser.add_argument("--dimension", type=int, help="blocks to use [default: n / 6]")
    parser.add_argument(
        "--effort", type=int, default=30, help="the largest block size of BKZ, in steps of 5 from 10 [default: 30]"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    if (args.torrent is None) == (args.group is None):
        parser.error("expected a .torrent or --group, and not both")
    return args


def main(arguments):
    args = parse(arguments)
    try:
        length = args.pieces.stat().st_size
    except OSError as error:
        raise Failure(f"{args.pieces}: {error.strerror}")
    torrent = Torrent(args.torrent) if args.torrent else Sealed(args.group, length)
    if not 0 <= args.piece < len(torrent.hashes):
        raise Failure(f"--piece: expected 0 to {len(torrent.hashes) - 1}")
    with open(args.pieces, "rb") as file:
        file.seek(args.piece * torrent.piece_length)
        piece = file.read(torrent.piece_length)
    if len(piece) != torrent.piece_length:
        raise Failure(f"{args.pieces}: it has no piece {args.piece}")
    bits = torrent.p.bit_length()
    dimension = args.dimension or bits // 6
    began = time.process_time()

    def say(step):
        if not args.json:
            print(f"{time.process_time() - began:8.1f} s  {step}, dimension {dimension}", file=sys.stderr, flush=True)

    factor = search(torrent.blocks(piece), torrent, dimension, range(10, args.effort + 1, 5), say)
    report = {
        "profile": torrent.profile,
        "group": torrent.group,
        "bits": bits,
        "dimension": dimension,
        "opened": factor is not None,
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    if factor is not None:
        opened = [block * factor % torrent.p for block in torrent.blocks(piece)]
        packaged = b"".join(block.to_bytes(torrent.width, torrent.order) for block in opened)
        report["sha1_is_the_torrent_s"] = hashlib.sha1(packaged).digest() == torrent.hashes[args.piece]
        if args.output:
            args.output.write_bytes(b"".join(block.to_bytes(torrent.width - 1, "big") for block in opened))
    if args.json:
        print(json.dumps(report))
    elif factor is None:
        print(f"nothing was found in {report['cpu_seconds']} s of CPU: {torrent.profile}, {bits} bits")
    else:
        proof = "its SHA-1 is the .torrent's" if report["sha1_is_the_torrent_s"] else "its SHA-1 is another"
        print(f"opened in {report['cpu_seconds']} s of CPU: {torrent.profile}, {bits} bits; {proof}")
    return 0 if factor is not None else 3


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        print(f"lattice.py: {failure}", file=sys.stderr)
        sys.exit(2)
