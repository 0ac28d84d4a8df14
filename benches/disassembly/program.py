"""An executable as `objdump` shows it."""

import re
import struct
import subprocess

import aarch64
import arm
import x86_64

ARCHITECTURES = {architecture.MACHINE: architecture for architecture in (x86_64, aarch64, arm)}


def plain(name):
    """A function's name without what its types are, as the older of Rust's manglings has it."""
    while name.endswith(">") and (start := opening(name)) and name[:start].endswith("::"):
        name = name[: start - 2]
    # Of a type's own: `<T>::f`.
    if name.startswith("<"):
        end = closing(name)
        if " as " not in name[:end]:
            name = name[1:end] + name[end + 1 :]
    return name


def closing(name):
    """Where the bracket closes that the name opens with."""
    depth = 0
    for at, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">" and name[at - 1] != "-")
        if depth == 0:
            return at
    return len(name) - 1


def opening(name):
    """Where the bracket opens that the name closes with."""
    depth = 0
    for at in range(len(name) - 1, -1, -1):
        depth += (name[at] == ">" and name[at - 1] != "-") - (name[at] == "<")
        if depth == 0:
            return at
    return 0


class Program:
    """An executable: its functions as objdump shows them, and its bytes."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self.image = file.read()
        assert self.image[:4] == b"\x7fELF" and self.image[5] == 1, "not a little-endian program"
        (machine,) = struct.unpack_from("<H", self.image, 18)
        self.architecture = ARCHITECTURES[machine]
        start, counts, section = (
            (("<Q", 0x28), 0x3A, "<IIQQQQ") if self.image[4] == 2 else (("<I", 0x20), 0x2E, "<IIIIII")
        )
        (at,) = struct.unpack_from(start[0], self.image, start[1])
        size, count = struct.unpack_from("<HH", self.image, counts)
        sections = [struct.unpack_from(section, self.image, at + i * size) for i in range(count)]
        self.sections = [
            (address, offset, length) for _, kind, _, address, offset, length in sections if address and kind != 8
        ]
        self.relocated = {}  # Of the global offset table.
        for _, kind, _, _, offset, length in sections:
            if kind == 4 and self.architecture.THROUGH_POINTER:
                for at in range(offset, offset + length, 24):
                    place, info, addend = struct.unpack_from("<QQq", self.image, at)
                    if info == self.architecture.RELATIVE:
                        self.relocated[place] = addend
        self.functions, self.names = [], {}
        self.read()

    def read(self):
        command = [*self.architecture.OBJDUMP, "-d", "-C", "--no-show-raw-insn", self.path]
        lines = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                address, tab, text = line.partition(":\t")
                if tab:
                    lines.append((int(address, 16), text.strip()))
                elif match := re.match(r"([0-9a-f]+) <(.*?)(?: ?\(?\.llvm\.\d+\)?)?>:$", line):
                    lines = []
                    self.names[int(match.group(1), 16)] = name = plain(match.group(2))
                    self.functions.append((name, lines))
        assert process.returncode == 0, "objdump failed"
        # Constant addresses that instructions have, where `objdump` computes them.
        found = (re.search(r"# ([0-9a-f]+)\b", text) for _, lines in self.functions for _, text in lines)
        self.referenced = sorted({int(match.group(1), 16) for match in found if match})

    def bytes(self, address, count):
        for start, offset, length in self.sections:
            if start <= address < start + length:
                return self.image[offset + address - start :][:count]
        return bytes(count)

    def called(self, instruction):
        """The name of what a call calls, as far as it stands in the program."""
        pointer = self.architecture.THROUGH_POINTER
        if pointer and (match := pointer.search(instruction.text)):
            return self.names.get(self.relocated.get(int(match.group(1), 16)), instruction.text)
        return instruction.text
