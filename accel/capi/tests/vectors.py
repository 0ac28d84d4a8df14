"""The shared library on the test vectors, by ctypes: `python3 vectors.py LIBRARY`. Then, with a directory, the files that the C
example is run on: `python3 vectors.py LIBRARY DIRECTORY`."""

import ctypes
import hashlib
import json
import pathlib
import sys

OK, NULL, BAD_LENGTH, UNKNOWN_NAME, BAD_KEY, BAD_PUBLIC_KEY, BAD_BLOCK, WITNESS_MISMATCH = 0, 1, 2, 4, 6, 7, 9, 11
VECTORS = pathlib.Path(__file__).resolve().parents[3] / "core-nostd" / "vectors"


class Party(ctypes.Structure):
    _fields_ = [
        ("master_key", ctypes.c_char_p),
        ("subscriber_id", ctypes.c_char_p),
        ("public_key", ctypes.c_char_p),
        ("epoch", ctypes.c_uint64),
    ]


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        for name in ("ss_params_size", "ss_params_align", "ss_element_size", "ss_payload_size"):
            getattr(self.c, name).restype = ctypes.c_size_t
        for name in ("ss_backend_name", "ss_params_backend", "ss_status_text", "ss_version"):
            getattr(self.c, name).restype = ctypes.c_char_p

    def backends(self):
        names = iter(lambda: self.c.ss_backend_name(ctypes.c_size_t(len(found))), None)
        found = []
        for name in names:
            found.append(name)
        return found


class Params:
    def __init__(self, library, profile, group, exponents, backend):
        self.c = library.c
        size, align = self.c.ss_params_size(), self.c.ss_params_align()
        self.memory = ctypes.create_string_buffer(size + align)
        start = ctypes.addressof(self.memory)
        self.place = ctypes.c_void_p(start + -start % align)
        self.pointer = ctypes.c_void_p()
        names = [None if name is None else ctypes.c_char_p(name) for name in (profile, group, exponents, backend)]
        status = self.c.ss_params_init(
            self.place, ctypes.c_size_t(size), *names, ctypes.byref(self.pointer)
        )
        if status != OK:
            raise ValueError(status)
        self.width = self.c.ss_element_size(self.pointer)

    def call(self, name, *args):
        return getattr(self.c, name)(self.pointer, *args)

    def out(self, name, *args):
        buffer = ctypes.create_string_buffer(self.width)
        status = self.call(name, *args, buffer, ctypes.c_size_t(self.width))
        assert status == OK, (name, status)
        return buffer.raw

    def in_place(self, name, piece, *args):
        buffer = ctypes.create_string_buffer(piece, len(piece))
        status = self.call(name, *args, buffer, ctypes.c_size_t(len(piece)))
        assert status == OK, (name, status)
        return buffer.raw


def bytes32(function, *args):
    """An id, a key or a hash, in hexadecimal."""
    buffer = ctypes.create_string_buffer(32)
    status = function(*args, buffer)
    assert status == OK, status
    return buffer.raw.hex()


def sized(data):
    return data, ctypes.c_size_t(len(data))


def same(piece, expected):
    if "bytes" in expected:
        return piece == bytes.fromhex(expected["bytes"])
    return hashlib.sha1(piece).hexdigest() == expected["sha1"]


def check(params, v):
    fields = ("publisher", "random", "torrent", "master", "package_secret")
    publisher, random, torrent, master, package_secret = (bytes.fromhex(v[name]) for name in fields)
    assert bytes32(params.c.ss_torrent_id, publisher, random) == v["torrent"]
    epoch, index = ctypes.c_uint64(v["epoch"]), ctypes.c_uint32(v["index"])
    payload = params.c.ss_payload_size(params.pointer, ctypes.c_size_t(v["length"]))
    content = bytes.fromhex(v["content"]) if v.get("content") else bytes((7 * i + 3) % 251 for i in range(payload))
    piece = content + bytes(v["length"] - payload)
    packaged = params.in_place("ss_package", piece, package_secret, torrent, index)
    assert same(packaged, v["packaged"])
    omega, published = (bytes.fromhex(v["witness"][name]) for name in ("secret", "hash"))
    copy = ctypes.create_string_buffer(packaged, len(packaged))
    length = ctypes.c_size_t(len(packaged))
    made = bytes32(params.c.ss_witness_hash, params.pointer, omega, torrent, index, copy, length)
    assert made == v["witness"]["hash"]
    cipher, parties = {}, {}
    for name in "jk":
        peer = v[name]
        root, s, y, subscriber = (bytes.fromhex(peer[name]) for name in ("root", "s", "y", "subscriber"))
        assert params.out("ss_device_secret_key", root, torrent) == s
        assert bytes32(params.c.ss_device_identity_key, root, torrent) == peer["identity_secret"]
        assert bytes32(params.c.ss_device_encryption_key, root, torrent) == peer["device_secret"]
        assert bytes32(params.c.ss_device_seat_key, root, publisher) == peer["seat_secret"]
        assert params.out("ss_public_key", *sized(s)) == y
        assert params.call("ss_public_key_check", *sized(y)) == OK
        device, identity, commitment = (bytes.fromhex(peer[name]) for name in ("device", "identity", "commitment"))
        made = bytes32(params.c.ss_key_commitment, params.pointer, device, *sized(y))
        assert made == peer["commitment"]
        assert bytes32(params.c.ss_subscriber_id, torrent, identity, commitment) == peer["subscriber"]
        party = parties[name] = Party(master, subscriber, y, v["epoch"])
        key = params.out("ss_encryption_key", ctypes.byref(party), index)
        assert key.hex() == peer["encryption_key"]
        entry = params.out("ss_decryption_key", master, subscriber, epoch, index)
        assert entry.hex() == peer["decryption_key"]
        cipher[name] = params.in_place("ss_encrypt_piece", packaged, *sized(key))
        assert same(cipher[name], peer["ciphertext"])
        witness_key = params.out("ss_witness_key", omega, torrent, ctypes.byref(party), index)
        assert witness_key.hex() == peer["witness_key"]
        assert witnessed(params, witness_key, published, cipher[name]) == OK
        wrong = bytearray(cipher[name])
        wrong[params.width // 2] ^= 1
        assert witnessed(params, witness_key, published, bytes(wrong)) == WITNESS_MISMATCH
        opened = params.out("ss_open_key", *sized(s), *sized(entry))
        plain = params.in_place("ss_decrypt_piece", cipher[name], *sized(opened))
        assert plain == packaged
        buffer, length = ctypes.create_string_buffer(plain, len(plain)), ctypes.c_size_t()
        status = params.call("ss_unpackage", buffer, ctypes.c_size_t(len(plain)), ctypes.byref(length))
        assert status == OK and buffer.raw[: length.value] == content
    rekey = params.out("ss_rekey", ctypes.byref(parties["j"]), ctypes.byref(parties["k"]), index)
    assert rekey.hex() == v["rekey"]
    before = params.out("ss_witness_key_before", *sized(bytes.fromhex(v["k"]["witness_key"])), *sized(rekey))
    assert before.hex() == v["j"]["witness_key"]
    assert params.in_place("ss_re_encrypt_piece", cipher["j"], *sized(rekey)) == cipher["k"]
    ticket = v["ticket"]
    signed, encoded = ctypes.create_string_buffer(113), ctypes.create_string_buffer(177)
    status = params.c.ss_ticket(
        torrent,
        bytes.fromhex(ticket["uploader"]),
        bytes.fromhex(ticket["downloader"]),
        ctypes.c_uint64(ticket["epoch"]),
        ctypes.c_uint64(ticket["expires"]),
        bytes.fromhex(ticket["signature"]),
        signed,
        encoded,
    )
    assert status == OK and signed.raw.hex() == ticket["signed"] and encoded.raw.hex() == ticket["encoded"]


def witnessed(params, key, published, piece):
    """What both ways to check say, which must agree."""
    length = ctypes.c_size_t(len(piece))
    buffer, scratch = (ctypes.create_string_buffer(piece, len(piece)) for _ in range(2))
    status = params.call("ss_check_witness", *sized(key), published, buffer, length, scratch, length)
    assert buffer.raw == piece
    assert params.call("ss_check_witness_in_place", *sized(key), published, buffer, length) == status
    return status


def refusals(library):
    """Every kind of wrong argument is told, and none is used."""
    for names in ((b"none",), (None, b"none"), (None, None, b"none"), (None, None, None, b"none")):
        try:
            Params(library, *names, *[None] * (4 - len(names)))
        except ValueError as error:
            assert error.args == (UNKNOWN_NAME,)
        else:
            raise AssertionError(names)
    params = Params(library, None, None, None, None)
    width, piece = params.width, ctypes.create_string_buffer(bytes(768), 768)
    key, length = b"\0" * (width - 1) + b"\2", ctypes.c_size_t(768)
    assert params.call("ss_re_encrypt_piece", None, ctypes.c_size_t(width), piece, length) == NULL
    assert params.call("ss_re_encrypt_piece", *sized(key[1:]), piece, length) == BAD_LENGTH
    assert params.call("ss_re_encrypt_piece", *sized(bytes(width)), piece, length) == BAD_KEY
    assert params.call("ss_re_encrypt_piece", *sized(b"\xff" * width), piece, length) == BAD_KEY
    assert params.call("ss_re_encrypt_piece", *sized(key), piece, ctypes.c_size_t(767)) == BAD_LENGTH
    block = ctypes.c_size_t(9)
    assert params.call("ss_check_piece", piece, length, ctypes.byref(block)) == BAD_BLOCK and block.value == 0
    assert witnessed(params, key, bytes(32), bytes(768)) == BAD_BLOCK
    assert witnessed(params, key, bytes(32), b"\1" * 768) == WITNESS_MISMATCH
    assert witnessed(params, key, bytes(32), b"\1" * 767) == BAD_LENGTH
    assert witnessed(params, bytes(width), bytes(32), b"\1" * 768) == BAD_KEY
    keys = json.loads((VECTORS / "keys.json").read_text())
    for bad in (entry for entry in keys if entry["group"] == "ffdhe2048"):
        assert params.call("ss_public_key_check", *sized(bytes.fromhex(bad["y"]))) == BAD_PUBLIC_KEY, bad["why"]


def files(library, directory):
    """The first vector in files, for the C example."""
    v = next(v for v in json.loads((VECTORS / "scheme.json").read_text()) if "bytes" in v["j"]["ciphertext"])
    assert (v["profile"], v["group"]) == ("sealed", "ffdhe2048")
    directory = pathlib.Path(directory)
    for name, data in {
        "pieces": v["j"]["ciphertext"]["bytes"],
        "expected": v["k"]["ciphertext"]["bytes"],
        "rekeys": v["rekey"],
        "witness-keys": v["k"]["witness_key"],
        "hashes": v["witness"]["hash"],
        "secret": v["k"]["s"],
        "license-keys": v["k"]["decryption_key"],
        "content": v["content"],
    }.items():
        (directory / name).write_bytes(bytes.fromhex(data) * (1 if name == "secret" else 2))
    print(v["length"])


def main():
    library = Library(sys.argv[1])
    if len(sys.argv) == 3:
        return files(library, sys.argv[2])
    vectors = json.loads((VECTORS / "scheme.json").read_text())
    backends = library.backends()
    for backend in backends:
        for v in vectors:
            names = [v[name].encode() for name in ("profile", "group", "exponents")]
            check(Params(library, *names, backend), v)
    refusals(library)
    print(f"{len(vectors)} vectors by {b', '.join(backends).decode()}: swarmseal {library.c.ss_version().decode()}")


main()
