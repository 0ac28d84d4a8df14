#!/usr/bin/env python3
"""An independent reference of the scheme, and the maker of the test vectors.

It follows ../SCHEME.md alone: plain Python integers, hashlib, and PyPI's blake3. It shares no code with the crate.

    python3 reference.py            writes the JSON files beside it
    python3 reference.py --check    fails if they differ from what it would write

Every byte string is hexadecimal; group elements are W bytes, big-endian. Files:

groups.json   [{name, bits, p, k?}]: the named primes; k is the offset that the definition of prime512 finds.
toys.json     [{p, g, secret, torrent, index, content, ctr, packaged}]: packages over primes just above 2^(n-1), which
              refuse half of all blocks, so that ctr counts retries. g has order (p-1)/2.
keys.json     [{group, y, why}]: public keys that must be refused.
scheme.json   one object for every profile, group and kind of exponents, which `paper` ignores, and one of a real piece
              (16 KiB):
              profile, group, exponents; publisher, random, torrent; master, epoch, index, package_secret;
              j, k: {root, identity_secret, device_secret, seat_secret, s, y, identity, device, commitment, subscriber,
              r, encryption_key, decryption_key, witness_key, ciphertext}; rekey (from j to k);
              witness: {secret, w, factor, hash};
              proof: {nonce (W+16 bytes), statement [..], encoded} for j;
              seed: {ed25519, id}; ticket: {uploader, downloader, epoch, expires, signature, signed, encoded};
              content (the payload), packaged, ctr (sealed only).
              The public keys publisher, identity and device are any 32 bytes: the scheme hashes them only.
              Where content is absent, byte i of it is (7 i + 3) mod 251, and packaged and the ciphertexts are given by
              their SHA-1.
vouchers.json [{key, order (text), line, number, publisher, code, mac}]: voucher codes and their MACs.
"""

import hashlib
import json
import math
import pathlib
import sys

from blake3 import blake3

HERE = pathlib.Path(__file__).parent


# -- numbers ---------------------------------------------------------------------------------------------------------

def floor_pi(bits):
    """floor(2^bits pi), by Machin's formula."""
    unity = 1 << (bits + 64)

    def arctan_inverse(x):
        total = term = unity // x
        n, sign = 3, -1
        while term:
            term //= x * x
            total += sign * (term // n)
            n, sign = n + 2, -sign
        return total

    return 4 * (4 * arctan_inverse(5) - arctan_inverse(239)) >> 64


def floor_e(bits):
    """floor(2^bits e), by its series."""
    term, total, n = 1 << (bits + 64), 0, 1
    while term:
        total += term
        term //= n
        n += 1
    return total >> 64


def is_prime(n, rounds=24):
    """Miller-Rabin with bases from BLAKE3 of the number."""
    if n < 2 or n % 2 == 0:
        return n == 2
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for i in range(rounds):
        base = 2 + int.from_bytes(blake3(b"%d %d" % (n, i)).digest(length=64), "big") % (n - 3)
        x = pow(base, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(s - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def is_safe_prime(p):
    small = math.prod((3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47))
    if p.bit_length() > 64 and (math.gcd(p, small) > 1 or math.gcd(p // 2, small) > 1):
        return False
    return is_prime(p, 1) and is_prime(p // 2, 1) and is_prime(p) and is_prime(p // 2)


def shaped(bits, middle):
    """64 one-bits, the middle, 64 one-bits."""
    return (1 << bits) - (1 << (bits - 64)) + (middle << 64) - 1


def named_primes():
    primes = {f"ffdhe{b}": (shaped(b, floor_e(b - 130) + x), None)
              for b, x in ((2048, 560316), (3072, 2625351), (4096, 5736041))}
    primes |= {f"modp{b}": (shaped(b, floor_pi(b - 130) + x), None)
               for b, x in ((768, 149686), (1024, 129093), (1536, 741804))}
    k = 0
    while not is_safe_prime(shaped(512, floor_pi(382) + k)):
        k += 1
    primes["prime512"] = (shaped(512, floor_pi(382) + k), k)
    assert all(is_safe_prime(p) for p, _ in primes.values())
    return primes


# -- the scheme ------------------------------------------------------------------------------------------------------

def kdf(purpose, *fields, length=32):
    material = b"".join(len(f).to_bytes(8, "little") + f for f in fields)
    return blake3(material, derive_key_context="swarmseal v1 " + purpose).digest(length=length)


def le64(n):
    return n.to_bytes(8, "little")


SHORT = {2048: 32, 3072: 40, 4096: 48}


class Group:
    def __init__(self, name, p, g=2):
        self.name, self.p, self.g = name, p, g
        self.q = (p - 1) // 2
        self.bits = p.bit_length()
        self.width = self.bits // 8
        assert pow(g, self.q, p) == 1 and 1 < g < p - 1

    def encode(self, x):
        return x.to_bytes(self.width, "big")

    def uniform(self, wide):
        return int.from_bytes(wide, "big") % self.q or 1

    def short(self, draw):
        return int.from_bytes(bytes([draw[0] | 0x80]) + draw[1:], "big")


class Params:
    def __init__(self, profile, group, exponents):
        self.profile, self.group, self.exponents = profile, group, exponents
        self.order = "little" if profile == "sealed" else "big"
        self.short = profile == "sealed" and exponents == "short"

    def exponent(self, short, purpose, *fields):
        length = SHORT[self.group.bits] if short else self.group.width + 16
        draw = kdf(purpose, *fields, length=length)
        return self.group.short(draw) if short else self.group.uniform(draw)

    def secret(self, root, torrent):
        group, e = self.group, self.group.encode
        fields = (root, torrent, self.profile.encode(), e(group.p), e(group.g))
        return self.exponent(self.profile == "sealed", "device secret", *fields)

    def ts_key(self, master, subscriber, epoch, index):
        return self.exponent(self.short, "ts key", master, subscriber, le64(epoch), le64(index))

    def witness(self, secret, torrent, index):
        return self.exponent(self.short, "witness", secret, torrent, le64(index))

    def commitment(self, device, y):
        return kdf("subscriber keys", device, self.group.encode(y))

    def payload(self, length):
        return length - 32 if self.profile == "sealed" else length // self.group.width * (self.group.width - 1)

    def multiply(self, piece, factor):
        w, p = self.group.width, self.group.p
        blocks = (int.from_bytes(piece[i:i + w], self.order) for i in range(0, len(piece), w))
        return b"".join((block * factor % p).to_bytes(w, self.order) for block in blocks)

    def pack(self, secret, torrent, index, content):
        if self.profile == "paper":
            w = self.group.width - 1
            return b"".join(b"\0" + content[i:i + w] for i in range(0, len(content), w)), None
        return seal(self.group, secret, torrent, index, content)


def torrent_id(publisher, random):
    return kdf("torrent id", publisher, random)


def subscriber_id(torrent, identity, commitment):
    return kdf("subscriber id", torrent, identity, commitment)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def seal(group, secret, torrent, index, content):
    h = kdf("package content", content)
    ctr = 0
    while True:
        kappa = kdf("package key", secret, torrent, le64(index), h, le64(ctr))
        y = xor(content, kdf("package keystream", kappa, length=len(content)))
        x = y + xor(kappa, kdf("package mask", y))
        blocks = (int.from_bytes(x[i:i + group.width], "little") for i in range(0, len(x), group.width))
        if all(0 < block < group.p for block in blocks):
            return x, ctr
        ctr += 1


def prove(group, s, y, wide, statement):
    k = group.uniform(wide)
    e = group.encode
    fields = [e(group.p), e(group.g), e(y), e(pow(group.g, k, group.p)), *statement]
    c = kdf("schnorr proof", *fields)
    z = (k + int.from_bytes(c, "big") * s) % group.q
    # What a verifier computes gives the same commitment.
    t = pow(group.g, z, group.p) * pow(pow(y, -1, group.p), int.from_bytes(c, "big"), group.p) % group.p
    assert t == pow(group.g, k, group.p)
    return c + e(z)


# -- the vectors -----------------------------------------------------------------------------------------------------

PUBLISHER = kdf("vectors publisher")
RANDOM = kdf("vectors random")
TORRENT = torrent_id(PUBLISHER, RANDOM)
MASTER = kdf("vectors master")
PACKAGE = kdf("vectors package")
WITNESS = kdf("vectors witness")


def scheme_vector(params, index, epoch, length, brief):
    group, e = params.group, params.group.encode
    payload = params.payload(length)
    content = bytes((7 * i + 3) % 251 for i in range(payload))
    packaged, ctr = params.pack(PACKAGE, TORRENT, index, content)
    assert len(packaged) == length

    def show(piece):
        return {"sha1": hashlib.sha1(piece).hexdigest()} if brief else {"bytes": piece.hex()}

    w = params.witness(WITNESS, TORRENT, index)
    factor = pow(group.g, w, group.p)
    witnessed = params.multiply(packaged, factor)
    peers, ciphertexts = {}, {}
    for name in ("j", "k"):
        root, identity, device = (kdf(f"vectors {what}", name.encode()) for what in ("root", "identity", "device"))
        s = params.secret(root, TORRENT)
        y = pow(group.g, s, group.p)
        commitment = params.commitment(device, y)
        subscriber = subscriber_id(TORRENT, identity, commitment)
        r = params.ts_key(MASTER, subscriber, epoch, index)
        key = pow(y, r, group.p)
        ciphertexts[name] = params.multiply(packaged, key)
        opening = pow(pow(pow(group.g, -1, group.p), r, group.p), s, group.p)
        assert params.multiply(ciphertexts[name], opening) == packaged
        witness_key = factor * pow(pow(y, -1, group.p), r, group.p) % group.p
        assert params.multiply(ciphertexts[name], witness_key) == witnessed
        peers[name] = {
            "root": root.hex(),
            "identity_secret": kdf("device identity", root, TORRENT).hex(),
            "device_secret": kdf("device encryption", root, TORRENT).hex(),
            "seat_secret": kdf("device seat", root, PUBLISHER).hex(),
            "s": e(s).hex(),
            "y": e(y).hex(),
            "identity": identity.hex(),
            "device": device.hex(),
            "commitment": commitment.hex(),
            "subscriber": subscriber.hex(),
            "r": e(r).hex(),
            "encryption_key": e(key).hex(),
            "decryption_key": e(pow(pow(group.g, -1, group.p), r, group.p)).hex(),
            "witness_key": e(witness_key).hex(),
            "ciphertext": show(ciphertexts[name]),
        }
    keys = {name: int(peer["encryption_key"], 16) for name, peer in peers.items()}
    rho = keys["k"] * pow(keys["j"], -1, group.p) % group.p
    assert params.multiply(ciphertexts["j"], rho) == ciphertexts["k"]

    statement = [TORRENT, b"identity", b"device", b"nonce"]
    wide = kdf("vectors nonce", length=group.width + 16)
    s, y = int(peers["j"]["s"], 16), int(peers["j"]["y"], 16)
    ed25519 = kdf("vectors ed25519")
    uploader, downloader = (bytes.fromhex(peers[name]["subscriber"]) for name in ("j", "k"))
    signed = b"\1" + TORRENT + uploader + downloader + epoch.to_bytes(8, "big") + (1 << 40).to_bytes(8, "big")
    signature = bytes(range(64))
    return {
        "profile": params.profile, "group": group.name, "exponents": params.exponents,
        "publisher": PUBLISHER.hex(), "random": RANDOM.hex(), "torrent": TORRENT.hex(),
        "master": MASTER.hex(), "epoch": epoch, "index": index, "package_secret": PACKAGE.hex(),
        **({} if brief else {"content": content.hex()}),
        "length": length, "packaged": show(packaged), "ctr": ctr,
        **peers, "rekey": e(rho).hex(),
        "witness": {
            "secret": WITNESS.hex(), "w": e(w).hex(), "factor": e(factor).hex(), "hash": blake3(witnessed).hexdigest(),
        },
        "proof": {
            "nonce": wide.hex(), "statement": [field.hex() for field in statement],
            "encoded": prove(group, s, y, wide, statement).hex(),
        },
        "seed": {"ed25519": ed25519.hex(), "id": kdf("seed id", TORRENT, ed25519).hex()},
        "ticket": {
            "uploader": uploader.hex(), "downloader": downloader.hex(), "epoch": epoch, "expires": 1 << 40,
            "signature": signature.hex(), "signed": signed.hex(), "encoded": (signed + signature).hex(),
        },
    }


def toy_vector(bits, blocks):
    p = (1 << (bits - 1)) + 7
    while not (p % 8 == 7 and is_safe_prime(p)):
        p += 4
    group = Group(None, p)
    # The first piece index that needs more than one retry.
    for index in range(1000):
        content = bytes((5 * i + index) % 256 for i in range(blocks * group.width - 32))
        packaged, ctr = seal(group, PACKAGE, TORRENT, index, content)
        if ctr > 1:
            return {
                "p": group.encode(p).hex(), "g": "02", "secret": PACKAGE.hex(), "torrent": TORRENT.hex(),
                "index": index, "content": content.hex(), "ctr": ctr, "packaged": packaged.hex(),
            }
    raise AssertionError("no retry in 1,000 pieces")


def key_vectors(group):
    non_residue = next(y for y in range(2, 100) if pow(y, group.q, group.p) != 1)
    values = [(0, "zero"), (1, "one"), (group.p - 1, "p - 1"), (group.p, "p"), (non_residue, "no residue"),
              (group.p - 4, "minus a residue")]
    return [{"group": group.name, "y": group.encode(y).hex(), "why": why} for y, why in values]


BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def characters(data, count):
    bits = "".join(f"{byte:08b}" for byte in data)
    return "".join(BASE32[int(bits[5 * i:5 * i + 5], 2)] for i in range(count))


def voucher_vector(key, order, line, number, publisher):
    code = characters(kdf("voucher code", key, order.encode(), le64(line), le64(number)), 20)
    check = characters(kdf("voucher check", code.encode(), publisher), 4)
    mac = blake3(code.encode(), key=kdf("voucher lookup", key)).digest()
    text = code + check
    return {"key": key.hex(), "order": order, "line": line, "number": number, "publisher": publisher.hex(),
            "code": "-".join(text[i:i + 4] for i in range(0, 24, 4)), "mac": mac.hex()}


def voucher_vectors():
    keys = [bytes([n]) * 32 for n in (1, 2)]
    publishers = [bytes(range(n, n + 32)) for n in (0, 100)]
    orders = [("A-1001", 0, 0), ("A-1001", 0, 999), ("A-1001", 4294967295, 0), ("x" * 64, 7, 4294967295)]
    rows = [voucher_vector(keys[0], *order, publishers[0]) for order in orders]
    return rows + [voucher_vector(keys[1], *orders[0], publishers[0]),
                   voucher_vector(keys[0], *orders[0], publishers[1])]


def vectors():
    primes = named_primes()
    groups = {name: Group(name, p) for name, (p, _) in primes.items()}
    scheme = []
    for profile, smallest in (("sealed", "ffdhe2048"), ("paper", "prime512")):
        for name, group in groups.items():
            if profile == "sealed" and group.bits not in SHORT:
                continue
            # `paper` ignores the kind: both give the same vector.
            for exponents in ("short", "full") if profile == "sealed" or name == smallest else ("full",):
                params = Params(profile, group, exponents)
                scheme.append(scheme_vector(params, 7, 3, 3 * group.width, name != smallest))
    scheme.append(scheme_vector(Params("sealed", groups["ffdhe2048"], "short"), 4294967295, 1, 16384, True))
    return {
        "groups.json": [
            {"name": name, "bits": p.bit_length(), "p": f"{p:x}", **({} if k is None else {"k": k})}
            for name, (p, k) in primes.items()
        ],
        "toys.json": [toy_vector(64, 6), toy_vector(512, 3)],
        "keys.json": [row for name in ("ffdhe2048", "prime512") for row in key_vectors(groups[name])],
        "scheme.json": scheme,
        "vouchers.json": voucher_vectors(),
    }


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    for name, rows in vectors().items():
        text = json.dumps(rows, indent=1) + "\n"
        if not check:
            (HERE / name).write_text(text)
        elif not (HERE / name).exists() or (HERE / name).read_text() != text:
            stale.append(name)
    if stale:
        sys.exit(f"not what the reference makes: {', '.join(stale)}")


if __name__ == "__main__":
    main()
