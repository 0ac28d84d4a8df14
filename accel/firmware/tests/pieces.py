"""Pieces for the firmware, made by the reference of the test vectors: `python3 pieces.py DIRECTORY LENGTH COUNT`. Needs PyPI's `blake3`."""

import hashlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "core-nostd" / "vectors"))
import reference


def main():
    directory, length, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    group = reference.Group("ffdhe2048", reference.named_primes()["ffdhe2048"][0])
    params = reference.Params("sealed", group, "short")
    p = group.p
    j, k = (params.secret(name) for name in (b"j", b"k"))
    files = {name: b"" for name in ("pieces", "rekeys", "expected", "license-keys", "hashes", "content")}
    for index in range(count):
        content = reference.kdf("vectors content", index.to_bytes(4, "big"), length=params.payload(length))
        packaged, _ = params.pack(reference.PACKAGE, reference.TORRENT, index, content)
        keys = {}
        for s in (j, k):
            y = pow(group.g, s, p)
            r = params.ts_key(reference.MASTER, reference.TORRENT, y, 1, index)
            keys[s] = pow(y, r, p)
        files["pieces"] += params.multiply(packaged, keys[j])
        rho = keys[k] * pow(keys[j], -1, p) % p
        files["rekeys"] += group.encode(rho)
        files["expected"] += params.multiply(packaged, keys[k])
        files["license-keys"] += group.encode(pow(pow(group.g, -1, p), r, p))
        files["hashes"] += hashlib.sha1(packaged).digest()
        files["content"] += content
    files["secret"] = group.encode(k)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    # One bit of the last piece's last block is another. It is still below p: that looks at the highest bytes. T turns it into one that only the
    # piece's SHA-1 tells from the right one.
    damaged = bytearray(files["pieces"])
    damaged[-group.width] ^= 1
    (directory / "damaged").write_bytes(damaged)
    last = params.multiply(damaged[-group.width:], rho)
    (directory / "damaged-expected").write_bytes(files["expected"][:-group.width] + last)


main()
