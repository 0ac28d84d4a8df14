"""The shared library on the test vectors, by ctypes: `python3 vectors.py LIBRARY`. Then, with a directory, the files that the C
example is run on: `python3 vectors.py LIBRARY DIRECTORY`."""

import ctypes
import hashlib
import json
import pathlib
import sys

OK, NULL, BAD_LENGTH, UNKNOWN_NAME, BAD_KEY, BAD_PUBLIC_KEY, BAD_BLOCK = 0, 1, 2, 4, 6, 7, 9
VECTORS = pathlib.Path(__file__).resolve().parents[3] / "core-nostd" / "vectors"


class Party(ctypes.Structure):
    _fields_ = [
        ("master_key", ctypes.c_char_p),
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

    def out(self, name, *args, size=None):
        size = size or self.width
        buffer = ctypes.create_string_buffer(size)
        length = [] if size == 32 and name == "ss_subscriber_id" else [ctypes.c_size_t(size)]
        status = self.call(name, *args, buffer, *length)
        assert status == OK, (name, status)
        return buffer.raw

    def in_place(self, name, piece, *args):
        buffer = ctypes.create_string_buffer(piece, len(piece))
        status = self.call(name, *args, buffer, ctypes.c_size_t(len(piece)))
        assert status == OK, (name, status)
        return buffer.raw


def sized(data):
    return data, ctypes.c_size_t(len(data))


def same(piece, expected):
    if "bytes" in expected:
        return piece == bytes.fromhex(expected["bytes"])
    return hashlib.sha1(piece).hexdigest() == expected["sha1"]


def check(params, v):
    fields = ("torrent", "master", "package_secret")
    torrent, master, package_secret = (bytes.fromhex(v[name]) for name in fields)
    epoch, index = ctypes.c_uint64(v["epoch"]), ctypes.c_uint32(v["index"])
    payload = params.c.ss_payload_size(params.pointer, ctypes.c_size_t(v["length"]))
    content = bytes.fromhex(v["content"]) if v.get("content") else bytes((7 * i + 3) % 251 for i in range(payload))
    piece = content + bytes(v["length"] - payload)
    packaged = params.in_place("ss_package", piece, package_secret, torrent, index)
    assert same(packaged, v["packaged"])
    cipher = {}
    for name in "jk":
        peer = v[name]
        s, y = bytes.fromhex(peer["s"]), bytes.fromhex(peer["y"])
        assert params.out("ss_public_key", *sized(s)) == y
        assert params.call("ss_public_key_check", *sized(y)) == OK
        assert params.out("ss_subscriber_id", torrent, *sized(y), size=32).hex() == peer["subscriber"]
        key = params.out("ss_encryption_key", master, torrent, *sized(y), epoch, index)
        assert key.hex() == peer["encryption_key"]
        entry = params.out("ss_decryption_key", master, torrent, *sized(y), epoch, index)
        assert entry.hex() == peer["decryption_key"]
        cipher[name] = params.in_place("ss_encrypt_piece", packaged, *sized(key))
        assert same(cipher[name], peer["ciphertext"])
        opened = params.out("ss_open_key", *sized(s), *sized(entry))
        plain = params.in_place("ss_decrypt_piece", cipher[name], *sized(opened))
        assert plain == packaged
        buffer, length = ctypes.create_string_buffer(plain, len(plain)), ctypes.c_size_t()
        status = params.call("ss_unpackage", buffer, ctypes.c_size_t(len(plain)), ctypes.byref(length))
        assert status == OK and buffer.raw[: length.value] == content
    j, k = (Party(master, bytes.fromhex(v[name]["y"]), v["epoch"]) for name in "jk")
    rekey = params.out("ss_rekey", torrent, ctypes.byref(j), ctypes.byref(k), index)
    assert rekey.hex() == v["rekey"]
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
        "secret": v["k"]["s"],
        "license-keys": v["k"]["decryption_key"],
        "content": v["content"],
    }.items():
        (directory / name).write_bytes(bytes.fromhex(data) * (2 if name in ("pieces", "expected", "rekeys", "license-keys", "content") else 1))
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
