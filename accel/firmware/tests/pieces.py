"""Pieces for the firmware, made by the reference of the test vectors: `python3 pieces.py DIRECTORY LENGTH COUNT`. Needs PyPI's `blake3`."""

import hashlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "core-nostd" / "vectors"))
import reference
from blake3 import blake3

NAMES = ("pieces", "witness-keys", "witness-hashes", "rekeys", "expected", "license-keys", "hashes", "content")


class Subscriber:
    """A device with that root, all of whose public keys but y are any."""

    def __init__(self, params, root):
        self.params = params
        self.s = params.secret(root, reference.TORRENT)
        self.y = pow(params.group.g, self.s, params.group.p)
        commitment = params.commitment(bytes(32), self.y)
        self.id = reference.subscriber_id(reference.TORRENT, bytes(32), commitment)

    def keys(self, index):
        """r and K of a piece."""
        r = self.params.ts_key(reference.MASTER, self.id, 1, index)
        return r, pow(self.y, r, self.params.group.p)


def main():
    directory, length, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    group = reference.Group("ffdhe2048", reference.named_primes()["ffdhe2048"][0])
    params = reference.Params("sealed", group, "short")
    p = group.p
    uploader, downloader = (Subscriber(params, root) for root in (b"j" * 32, b"k" * 32))
    files = dict.fromkeys(NAMES, b"")
    for index in range(count):
        content = reference.kdf("vectors content", index.to_bytes(4, "big"), length=params.payload(length))
        packaged, _ = params.pack(reference.PACKAGE, reference.TORRENT, index, content)
        (_, key_j), (r_k, key_k) = uploader.keys(index), downloader.keys(index)
        factor = pow(group.g, params.witness(reference.WITNESS, reference.TORRENT, index), p)
        files["pieces"] += params.multiply(packaged, key_j)
        files["witness-keys"] += group.encode(factor * pow(key_j, -1, p) % p)
        files["witness-hashes"] += blake3(params.multiply(packaged, factor)).digest()
        rho = key_k * pow(key_j, -1, p) % p
        files["rekeys"] += group.encode(rho)
        files["expected"] += params.multiply(packaged, key_k)
        files["license-keys"] += group.encode(pow(pow(group.g, -1, p), r_k, p))
        files["hashes"] += hashlib.sha1(packaged).digest()
        files["content"] += content
    files["secret"] = group.encode(downloader.s)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    # One bit of the last piece's last block is another. It is still below p: that looks at the highest bytes. T turns it into one that only the
    # hashes tell from the right one.
    damaged = bytearray(files["pieces"])
    damaged[-group.width] ^= 1
    (directory / "damaged").write_bytes(damaged)
    last = params.multiply(damaged[-group.width:], rho)
    (directory / "damaged-expected").write_bytes(files["expected"][:-group.width] + last)


main()
