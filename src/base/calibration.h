/* calibration.h: what was measured on this machine, kept in a small file so that the next open need not measure again.
 *
 *     quire calibration 1
 *     device NVIDIA H100 80GB HBM3, driver 13000
 *     block 2097152 unit 16384 copy 41234 gather 45200 pack 33100
 *
 * A line a block's geometry; times are nanoseconds a block, there and back; 0: not measured. A file that is missing, of
 * another version or device, or that cannot be read counts as empty, and so does a line that is not as above. It is
 * replaced as a whole, by a rename: a reader sees one writer's file or another's; what one of them did not know of is
 * measured again. */
#ifndef QUIRE_CALIBRATION_H
#define QUIRE_CALIBRATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct quire__calibration {
    uint64_t block_bytes;
    uint32_t unit_elements; /* of packing; 0: it is not packed */
    uint64_t copy_ns, gather_ns, pack_ns;
} quire__calibration;

enum { QUIRE__CALIBRATION_LINES = 64 }; /* the newest so many are kept */

/* Where the device's file is: `setting` (options.calibration) if it names one, else in the user's cache folder. False: there
 * is none, since the setting is "off", the user has no such folder, or the path is too long. */
bool quire__calibration_path(const char *setting, const char *device, char *path, size_t capacity);
/* Fills the times of the entry with this block_bytes and unit_elements. False: there is none. */
bool quire__calibration_load(const char *path, const char *device, quire__calibration *entry);
/* Adds or replaces the entry, best effort: what cannot be written is not. Makes the cache folder's own folders. */
void quire__calibration_store(const char *path, const char *device, const quire__calibration *entry);

#endif
