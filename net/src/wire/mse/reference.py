"""MSE/PE handshakes from the specification's text, independent of the Rust code, for its tests.

python3 reference.py > vectors.json
"""

import hashlib
import json

P = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563",
    16,
)
VC = bytes(8)


def HASH(*parts):
    return hashlib.sha1(b"".join(parts)).digest()


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


class Rc4:
    def __init__(self, key):
        self.s, self.i, self.j = list(range(256)), 0, 0
        j = 0
        for i in range(256):
            j = (j + self.s[i] + key[i % len(key)]) % 256
            self.s[i], self.s[j] = self.s[j], self.s[i]
        self(bytes(1024))

    def __call__(self, data):
        out = bytearray()
        for byte in data:
            self.i = (self.i + 1) % 256
            self.j = (self.j + self.s[self.i]) % 256
            self.s[self.i], self.s[self.j] = self.s[self.j], self.s[self.i]
            out.append(byte ^ self.s[(self.s[self.i] + self.s[self.j]) % 256])
        return bytes(out)


def counted(data):
    return len(data).to_bytes(2, "big") + data


def entropy(seed, clear, enciphered):
    """What one side is given: exponent, two lengths, padding. Long enough, and told from each other by `seed`."""
    exponent = HASH(b"exponent", seed)
    padding = b"".join(HASH(b"padding", seed, bytes([i])) for i in range(26))[:512]
    return exponent + clear.to_bytes(2, "big") + enciphered.to_bytes(2, "big") + padding


def handshake(name, pads, provide, select, skey, ia, stream):
    a, b = entropy(b"A" + name, pads[0], pads[2]), entropy(b"B" + name, pads[1], pads[3])
    xa, xb = (int.from_bytes(side[:20], "big") for side in (a, b))
    ya, yb = pow(2, xa, P), pow(2, xb, P)
    s = pow(yb, xa, P)
    assert s == pow(ya, xb, P)
    s, ya, yb = (value.to_bytes(96, "big") for value in (s, ya, yb))
    from_a, from_b = Rc4(HASH(b"keyA", s, skey)), Rc4(HASH(b"keyB", s, skey))
    one = ya + a[24 : 24 + pads[0]]
    two = yb + b[24 : 24 + pads[1]]
    three = HASH(b"req1", s) + xor(HASH(b"req2", skey), HASH(b"req3", s))
    three += from_a(VC + provide.to_bytes(4, "big") + counted(bytes(pads[2])) + counted(ia))
    four = from_b(VC + select.to_bytes(4, "big") + counted(bytes(pads[3])))
    encrypt = (lambda cipher, data: cipher(data)) if select == 2 else (lambda cipher, data: data)
    return {
        "entropy": [a.hex(), b.hex()],
        "provide": provide,
        "select": select,
        "info_hash": skey.hex(),
        "payload": ia.hex(),
        "messages": [one.hex(), two.hex(), three.hex(), four.hex()],
        "stream": stream.hex(),
        "enciphered": [encrypt(from_a, stream).hex(), encrypt(from_b, stream).hex()],
    }


skey = HASH(b"info")
ia = b"\x13BitTorrent protocol" + bytes(8) + skey + b"-XX0000-0123456789ab"
stream = b"the stream goes on"
# The generator by itself, to see that the cipher is RC4: RFC 6229, 40-bit key, offset 1024.
assert Rc4(bytes([1, 2, 3, 4, 5]))(bytes(4)).hex() == "30abbcc7"

print(
    json.dumps(
        [
            handshake(b"short", (3, 5, 7, 2), 3, 2, skey, ia, stream),
            handshake(b"none", (0, 0, 0, 0), 2, 2, skey, ia, stream),
            handshake(b"plain", (512, 17, 0, 512), 3, 1, skey, ia, stream),
            handshake(b"long", (512, 512, 512, 512), 2, 2, skey, ia, stream),
        ],
        indent=1,
    )
)
