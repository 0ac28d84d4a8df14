/* T, the witness and PDec on a file of pieces, as a set-top box does them.
 *
 *   pieces transform REKEYS FILE            turns our pieces into another subscriber's
 *   pieces check WITNESS-KEYS HASHES FILE   checks that our pieces are what was published
 *   pieces play SECRET LICENSE-KEYS FILE    opens our pieces; the payload goes to standard output
 *
 * REKEYS, WITNESS-KEYS and LICENSE-KEYS hold a key of W bytes for each piece, HASHES 32 bytes for each, SECRET holds one key; FILE holds
 * whole pieces, one after another, and `transform` rewrites it. Their length is PIECE bytes, by default 262144. A player checks each
 * opened piece's SHA-1 against the .torrent before it uses a byte of it; that is left out here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "swarmseal.h"

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "pieces: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void check(ss_status status, const char *what)
{
    if (status != SS_OK)
        fail(what, ss_status_text((int)status));
}

static FILE *open_file(const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    if (!file)
        fail(path, "cannot be opened");
    return file;
}

/* A whole unit, or nothing at the file's end. */
static int read_whole(FILE *file, const char *path, uint8_t *out, size_t length)
{
    size_t got = fread(out, 1, length, file);
    if (got != 0 && got != length)
        fail(path, "does not end with a whole unit");
    if (ferror(file))
        fail(path, "cannot be read");
    return got == length;
}

int main(int argc, char **argv)
{
    int transform = argc == 4 && strcmp(argv[1], "transform") == 0;
    int witness = argc == 5 && strcmp(argv[1], "check") == 0;
    int play = argc == 5 && strcmp(argv[1], "play") == 0;
    if (!transform && !witness && !play) {
        fputs("usage: pieces transform REKEYS FILE | check WITNESS-KEYS HASHES FILE | play SECRET LICENSE-KEYS FILE\n", stderr);
        return 2;
    }
    const char *length_text = getenv("PIECE");
    size_t piece_length = length_text ? (size_t)strtoul(length_text, NULL, 10) : 262144;

    /* C11's aligned_alloc wants a multiple of the alignment. */
    size_t align = ss_params_align();
    size_t room = (ss_params_size() + align - 1) / align * align;
    void *memory = aligned_alloc(align, room);
    uint8_t *piece = malloc(piece_length ? piece_length : 1);
    if (!memory || !piece)
        fail("memory", "there is not enough");
    const ss_params *params;
    check(ss_params_init(memory, room, NULL, NULL, NULL, getenv("BACKEND"), &params), "parameters");
    size_t width = ss_element_size(params);

    uint8_t secret[SS_MAX_ELEMENT_SIZE] = {0}, key[SS_MAX_ELEMENT_SIZE], opened[SS_MAX_ELEMENT_SIZE];
    uint8_t hash[SS_ID_SIZE];
    if (play) {
        FILE *file = open_file(argv[2], "rb");
        if (!read_whole(file, argv[2], secret, width))
            fail(argv[2], "holds no key");
        fclose(file);
    }
    const char *keys_path = argv[play ? 3 : 2], *pieces_path = argv[argc - 1];
    FILE *keys = open_file(keys_path, "rb");
    FILE *hashes = witness ? open_file(argv[3], "rb") : NULL;
    int all_good = 1;
    FILE *pieces = open_file(pieces_path, transform ? "r+b" : "rb");
    for (long index = 0; read_whole(pieces, pieces_path, piece, piece_length); index++) {
        if (!read_whole(keys, keys_path, key, width))
            fail(keys_path, "has fewer keys than there are pieces");
        if (hashes) {
            if (!read_whole(hashes, argv[3], hash, sizeof hash))
                fail(argv[3], "has fewer hashes than there are pieces");
            ss_status status = ss_check_witness_in_place(params, key, width, hash, piece, piece_length);
            if (status != SS_BAD_BLOCK && status != SS_WITNESS_MISMATCH)
                check(status, "witness");
            if (status != SS_OK) {
                fprintf(stderr, "pieces: piece %ld: %s\n", index, ss_status_text((int)status));
                all_good = 0;
            }
            continue;
        }
        size_t bad_block = 0;
        if (ss_check_piece(params, piece, piece_length, &bad_block) == SS_BAD_BLOCK)
            fprintf(stderr, "pieces: piece %ld: block %zu is no group element\n", index, bad_block);
        if (transform) {
            check(ss_re_encrypt_piece(params, key, width, piece, piece_length), "T");
            if (fseek(pieces, index * (long)piece_length, SEEK_SET) != 0
                || fwrite(piece, 1, piece_length, pieces) != piece_length
                || fseek(pieces, (index + 1) * (long)piece_length, SEEK_SET) != 0)
                fail(pieces_path, "cannot be written");
        } else {
            size_t payload = 0;
            check(ss_open_key(params, secret, width, key, width, opened, width), "license key");
            check(ss_decrypt_piece(params, opened, width, piece, piece_length), "PDec");
            check(ss_unpackage(params, piece, piece_length, &payload), "package");
            if (fwrite(piece, 1, payload, stdout) != payload)
                fail("standard output", "cannot be written");
        }
    }
    fprintf(stderr, "pieces: by %s\n", ss_params_backend(params));
    if (fclose(pieces) != 0 || fflush(stdout) != 0)
        fail(pieces_path, "cannot be written");
    fclose(keys);
    if (hashes)
        fclose(hashes);
    memset(secret, 0, sizeof secret);
    memset(opened, 0, sizeof opened);
    free(piece);
    free(memory);
    return all_good ? EXIT_SUCCESS : EXIT_FAILURE;
}
