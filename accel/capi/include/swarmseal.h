#ifndef SWARMSEAL_H
#define SWARMSEAL_H

/* Made by cbindgen from src/lib.rs: `SWARMSEAL_RENEW=1 cargo test -p swarmseal-capi --test header` makes it anew. */

#include <stddef.h>
#include <stdint.h>

/**
 * Bytes of ids, of Ed25519 and X25519 keys, of witness hashes, and of each secret that is no number: device root, package secret,
 * master key and witness secret.
 */
#define SS_ID_SIZE 32

/**
 * Bytes of an Ed25519 signature.
 */
#define SS_SIGNATURE_SIZE 64

/**
 * Bytes of the largest group's elements: a buffer that holds any key.
 */
#define SS_MAX_ELEMENT_SIZE 512

/**
 * Bytes of a ticket that its signature covers.
 */
#define SS_TICKET_SIGNED_SIZE 113

/**
 * Bytes of a ticket.
 */
#define SS_TICKET_SIZE 177

/**
 * What a function answers.
 */
typedef enum ss_status {
  /**
   * It was done.
   */
  SS_OK = 0,
  /**
   * A pointer is null.
   */
  SS_NULL = 1,
  /**
   * A buffer has the wrong length; for a piece: it is no whole number of blocks.
   */
  SS_BAD_LENGTH = 2,
  /**
   * The memory for parameters is too small or not aligned.
   */
  SS_BAD_MEMORY = 3,
  /**
   * A profile, group, kind of exponents or backend of that name is not known, or this CPU cannot run it.
   */
  SS_UNKNOWN_NAME = 4,
  /**
   * Profile and group do not go together.
   */
  SS_BAD_GROUP = 5,
  /**
   * A key is no element of the group.
   */
  SS_BAD_KEY = 6,
  /**
   * A public key is not 2 <= y <= p-2 with Jacobi symbol +1.
   */
  SS_BAD_PUBLIC_KEY = 7,
  /**
   * A secret key is no exponent of the profile.
   */
  SS_BAD_SECRET_KEY = 8,
  /**
   * A block of a received piece is 0 or not below p: whoever sent it is not to be trusted.
   */
  SS_BAD_BLOCK = 9,
  /**
   * A ticket has a newer version.
   */
  SS_NEWER_VERSION = 10,
  /**
   * A received piece is not what was published, or its witness key is for another piece, subscriber or epoch.
   */
  SS_WITNESS_MISMATCH = 11,
  /**
   * A defect of this library.
   */
  SS_INTERNAL = 12,
} ss_status;

/**
 * The parameters of a torrent: profile, group, exponents, and the backend that does the arithmetic. Immutable: any number of threads
 * may use one.
 */
typedef struct ss_params ss_params;

/**
 * A subscriber in an epoch, as the tracker knows it.
 */
typedef struct ss_party {
  /**
   * The epoch's master key: SS_ID_SIZE bytes.
   */
  const uint8_t *master_key;
  /**
   * SS_ID_SIZE bytes, made of this very public key.
   */
  const uint8_t *subscriber_id;
  /**
   * y: W bytes.
   */
  const uint8_t *public_key;
  /**
   * The epoch that the piece is encrypted for.
   */
  uint64_t epoch;
} ss_party;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * What a status means, in English.
 */
const char *ss_status_text(int status);

/**
 * This library's version, such as 0.1.0.
 */
const char *ss_version(void);

/**
 * Bytes that ss_params_init needs.
 */
size_t ss_params_size(void);

/**
 * What their address must be a multiple of.
 */
size_t ss_params_align(void);

/**
 * Makes the parameters of a torrent in memory that the caller lends for as long as it uses them. Nothing need be undone.
 *
 * `profile`, `group` and `exponents` are what `info.swarmseal` names; null: sealed, ffdhe2048, short. `backend` is one of
 * ss_backend_name; null: the fastest. Answers SS_BAD_MEMORY, SS_UNKNOWN_NAME, SS_BAD_GROUP, SS_NULL.
 *
 * # Safety
 * `memory` has `length` bytes that nobody else uses meanwhile; the names are null or end with a zero byte; `params` takes a pointer.
 */
enum ss_status ss_params_init(void *memory,
                              size_t length,
                              const char *profile,
                              const char *group,
                              const char *exponents,
                              const char *backend,
                              const struct ss_params **params);

/**
 * The name of the backend that does the arithmetic of these parameters; null for null.
 *
 * # Safety
 * `params` is null or of ss_params_init.
 */
const char *ss_params_backend(const struct ss_params *params);

/**
 * The name of backend `index` of those that this CPU can run, the slowest first; null where there are no more.
 */
const char *ss_backend_name(size_t index);

/**
 * W: bytes of a group element, and of a block of a piece; 0 for null.
 *
 * # Safety
 * `params` is null or of ss_params_init.
 */
size_t ss_element_size(const struct ss_params *params);

/**
 * Bytes of plaintext in a piece of `piece_length` bytes; 0 for null.
 *
 * # Safety
 * `params` is null or of ss_params_init.
 */
size_t ss_payload_size(const struct ss_params *params, size_t piece_length);

/**
 * A torrent's id: SS_ID_SIZE bytes. `publisher_key` is the publisher's Ed25519 public key, `random` the 32 random bytes of
 * `info.swarmseal`. Answers SS_NULL.
 *
 * # Safety
 * Each buffer has SS_ID_SIZE bytes.
 */
enum ss_status ss_torrent_id(const uint8_t *publisher_key,
                             const uint8_t *random,
                             uint8_t *torrent_id);

/**
 * Makes a subscriber's secret key s for one torrent from the device's root: W bytes. The root is 32 bytes of a good generator, one
 * for all torrents. Answers SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; `root` and `torrent_id` have SS_ID_SIZE bytes, `secret` the length beside it.
 */
enum ss_status ss_device_secret_key(const struct ss_params *params,
                                    const uint8_t *root,
                                    const uint8_t *torrent_id,
                                    uint8_t *secret,
                                    size_t secret_length);

/**
 * Makes the private key of a subscriber's Ed25519 identity key for one torrent from the device's root: SS_ID_SIZE bytes. Answers
 * SS_NULL.
 *
 * # Safety
 * Each buffer has SS_ID_SIZE bytes.
 */
enum ss_status ss_device_identity_key(const uint8_t *root,
                                      const uint8_t *torrent_id,
                                      uint8_t *private_key);

/**
 * Makes the private key of a subscriber's X25519 device key for one torrent from the device's root: SS_ID_SIZE bytes. Answers
 * SS_NULL.
 *
 * # Safety
 * Each buffer has SS_ID_SIZE bytes.
 */
enum ss_status ss_device_encryption_key(const uint8_t *root,
                                        const uint8_t *torrent_id,
                                        uint8_t *private_key);

/**
 * Makes the private key of the device's Ed25519 seat key for one publisher from the device's root: SS_ID_SIZE bytes.
 * `publisher_key` is the publisher's Ed25519 public key. Answers SS_NULL.
 *
 * # Safety
 * Each buffer has SS_ID_SIZE bytes.
 */
enum ss_status ss_device_seat_key(const uint8_t *root,
                                  const uint8_t *publisher_key,
                                  uint8_t *private_key);

/**
 * y = g^s: W bytes. Answers SS_BAD_SECRET_KEY, SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; the buffers have the lengths beside them.
 */
enum ss_status ss_public_key(const struct ss_params *params,
                             const uint8_t *secret,
                             size_t secret_length,
                             uint8_t *public_key,
                             size_t public_key_length);

/**
 * Whether a public key may be used: SS_OK, SS_BAD_PUBLIC_KEY, SS_BAD_LENGTH, SS_NULL. In variable time: the key is public.
 *
 * # Safety
 * `params` is of ss_params_init; the buffer has the length beside it.
 */
enum ss_status ss_public_key_check(const struct ss_params *params,
                                   const uint8_t *public_key,
                                   size_t public_key_length);

/**
 * What a subscriber says of its keys to peers, who make its id of it: SS_ID_SIZE bytes. `device_key` is its X25519 public key. Answers
 * SS_BAD_PUBLIC_KEY, SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; `device_key` and `commitment` have SS_ID_SIZE bytes, the public key the length beside it.
 */
enum ss_status ss_key_commitment(const struct ss_params *params,
                                 const uint8_t *device_key,
                                 const uint8_t *public_key,
                                 size_t public_key_length,
                                 uint8_t *commitment);

/**
 * A subscriber's id: SS_ID_SIZE bytes. `identity_key` is its Ed25519 public key, `commitment` is of ss_key_commitment. Answers SS_NULL.
 *
 * # Safety
 * Each buffer has SS_ID_SIZE bytes.
 */
enum ss_status ss_subscriber_id(const uint8_t *torrent_id,
                                const uint8_t *identity_key,
                                const uint8_t *commitment,
                                uint8_t *subscriber_id);

/**
 * Writes a ticket, by which an uploader may ask for re-keys to the downloader, and what its signature covers: SS_TICKET_SIGNED_SIZE
 * bytes. Sign those with the downloader's Ed25519 key as the peer protocol says, and hand the signature in at the second call.
 *
 * `signature` may be null: then `ticket` is left alone, and may be null as well. Answers SS_NULL.
 *
 * # Safety
 * The ids have SS_ID_SIZE bytes, `signature` SS_SIGNATURE_SIZE, `signed_part` SS_TICKET_SIGNED_SIZE, `ticket` SS_TICKET_SIZE.
 */
enum ss_status ss_ticket(const uint8_t *torrent_id,
                         const uint8_t *uploader,
                         const uint8_t *downloader,
                         uint64_t epoch,
                         uint64_t expires,
                         const uint8_t *signature,
                         uint8_t *signed_part,
                         uint8_t *ticket);

/**
 * Whether every block of a received piece is in 1 ... p-1: SS_OK, or SS_BAD_BLOCK with the block's number in `bad_block`, which may
 * be null; SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; the piece has the length beside it; `bad_block` takes a number or is null.
 */
enum ss_status ss_check_piece(const struct ss_params *params,
                              const uint8_t *piece,
                              size_t piece_length,
                              size_t *bad_block);

/**
 * Checks that a received piece is what was published, in every byte: that each block is in 1 ... p-1, T with the witness key of W bytes
 * in `scratch`, and BLAKE3. `expected` is the piece's hash in `info.swarmseal`; `scratch` is as long as the piece and afterwards of no
 * use. Answers SS_BAD_BLOCK, SS_WITNESS_MISMATCH, SS_BAD_KEY, SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; `expected` has SS_ID_SIZE bytes, the others the lengths beside them.
 */
enum ss_status ss_check_witness(const struct ss_params *params,
                                const uint8_t *witness_key,
                                size_t witness_key_length,
                                const uint8_t *expected,
                                const uint8_t *piece,
                                size_t piece_length,
                                uint8_t *scratch,
                                size_t scratch_length);

/**
 * ss_check_witness without a second buffer: the piece is overwritten, and afterwards of no use.
 *
 * # Safety
 * As of ss_check_witness.
 */
enum ss_status ss_check_witness_in_place(const struct ss_params *params,
                                         const uint8_t *witness_key,
                                         size_t witness_key_length,
                                         const uint8_t *expected,
                                         uint8_t *piece,
                                         size_t piece_length);

/**
 * The witness key of what a re-key is applied to, from that of what it makes: W bytes. So a stored piece is checked with the witness key
 * of its next epoch. Answers SS_BAD_KEY, SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; the buffers have the lengths beside them.
 */
enum ss_status ss_witness_key_before(const struct ss_params *params,
                                     const uint8_t *witness_key,
                                     size_t witness_key_length,
                                     const uint8_t *rekey,
                                     size_t rekey_length,
                                     uint8_t *before,
                                     size_t before_length);

/**
 * T: turns an uploader's piece into the downloader's, in place, with the re-key of W bytes. Answers SS_BAD_KEY, SS_BAD_LENGTH,
 * SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; the buffers have the lengths beside them.
 */
enum ss_status ss_re_encrypt_piece(const struct ss_params *params,
                                   const uint8_t *rekey,
                                   size_t rekey_length,
                                   uint8_t *piece,
                                   size_t piece_length);

/**
 * Opens a license's key of one piece with the subscriber's secret key: K^-1, W bytes, for ss_decrypt_piece. It opens that piece for
 * anybody: wipe it. Answers SS_BAD_SECRET_KEY, SS_BAD_KEY, SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; the buffers have the lengths beside them.
 */
enum ss_status ss_open_key(const struct ss_params *params,
                           const uint8_t *secret,
                           size_t secret_length,
                           const uint8_t *decryption_key,
                           size_t decryption_key_length,
                           uint8_t *opened_key,
                           size_t opened_key_length);

/**
 * PDec: opens a piece in place, to its package, with the key of ss_open_key. Check its SHA-1 against the .torrent before
 * ss_unpackage: only then is it what was published. Answers SS_BAD_KEY, SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; the buffers have the lengths beside them.
 */
enum ss_status ss_decrypt_piece(const struct ss_params *params,
                                const uint8_t *opened_key,
                                size_t opened_key_length,
                                uint8_t *piece,
                                size_t piece_length);

/**
 * Opens a package in place: its payload is then in the first `payload_length` bytes. Authenticates nothing. Answers SS_BAD_LENGTH,
 * SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; the piece has the length beside it; `payload_length` takes a number.
 */
enum ss_status ss_unpackage(const struct ss_params *params,
                            uint8_t *piece,
                            size_t piece_length,
                            size_t *payload_length);

/**
 * An original seed's package: the payload in the first ss_payload_size bytes becomes the packaged piece, in place. Answers
 * SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; `package_secret` and `torrent_id` have SS_ID_SIZE bytes, the piece the length beside it.
 */
enum ss_status ss_package(const struct ss_params *params,
                          const uint8_t *package_secret,
                          const uint8_t *torrent_id,
                          uint32_t index,
                          uint8_t *piece,
                          size_t piece_length);

/**
 * PEnc: encrypts a packaged piece in place for one subscriber, with the encryption key of W bytes. Answers SS_BAD_KEY,
 * SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; the buffers have the lengths beside them.
 */
enum ss_status ss_encrypt_piece(const struct ss_params *params,
                                const uint8_t *encryption_key,
                                size_t encryption_key_length,
                                uint8_t *piece,
                                size_t piece_length);

/**
 * A license's key of one piece of one subscriber in one epoch: W bytes. Answers SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; `master_key` and `subscriber_id` have SS_ID_SIZE bytes, the key the length beside it.
 */
enum ss_status ss_decryption_key(const struct ss_params *params,
                                 const uint8_t *master_key,
                                 const uint8_t *subscriber_id,
                                 uint64_t epoch,
                                 uint32_t index,
                                 uint8_t *decryption_key,
                                 size_t decryption_key_length);

/**
 * A tracker's encryption key of one piece of one subscriber: W bytes, for an original seed. Answers SS_BAD_PUBLIC_KEY, SS_BAD_LENGTH,
 * SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; what the party points to is as it says; `encryption_key` has the length beside it.
 */
enum ss_status ss_encryption_key(const struct ss_params *params,
                                 const struct ss_party *subscriber,
                                 uint32_t index,
                                 uint8_t *encryption_key,
                                 size_t encryption_key_length);

/**
 * A tracker's re-key of one piece, from the uploader's ciphertext to the downloader's: W bytes. Answers SS_BAD_PUBLIC_KEY,
 * SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; what the parties point to is as they say; `rekey` has the length beside it.
 */
enum ss_status ss_rekey(const struct ss_params *params,
                        const struct ss_party *uploader,
                        const struct ss_party *downloader,
                        uint32_t index,
                        uint8_t *rekey,
                        size_t rekey_length);

/**
 * A tracker's witness key of one piece of one subscriber, for ss_check_witness: W bytes. Answers SS_BAD_PUBLIC_KEY, SS_BAD_LENGTH,
 * SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; `witness_secret` and `torrent_id` have SS_ID_SIZE bytes; what the party points to is as it says;
 * `witness_key` has the length beside it.
 */
enum ss_status ss_witness_key(const struct ss_params *params,
                              const uint8_t *witness_secret,
                              const uint8_t *torrent_id,
                              const struct ss_party *subscriber,
                              uint32_t index,
                              uint8_t *witness_key,
                              size_t witness_key_length);

/**
 * A publisher's witness hash of a packaged piece, for `info.swarmseal`: SS_ID_SIZE bytes. The piece is overwritten, and afterwards of
 * no use. `witness_secret` is 32 bytes of a good generator, drawn for this publication. Answers SS_BAD_LENGTH, SS_NULL.
 *
 * # Safety
 * `params` is of ss_params_init; `witness_secret`, `torrent_id` and `hash` have SS_ID_SIZE bytes, the piece the length beside it.
 */
enum ss_status ss_witness_hash(const struct ss_params *params,
                               const uint8_t *witness_secret,
                               const uint8_t *torrent_id,
                               uint32_t index,
                               uint8_t *piece,
                               size_t piece_length,
                               uint8_t *hash);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SWARMSEAL_H */
