/* table_update.cu: single entries of the device's block table.
 *
 * Moves 16 bytes a change. Tables stay at fixed addresses, so that a captured graph keeps reading them. An
 * entry must not occur twice in one call: the changes are unordered. Launch: a thread a change.
 */
#include "common.cuh"

namespace qk
{

constexpr int TABLE_THREADS = 128;

__global__ void __launch_bounds__(TABLE_THREADS) table_kernel(const quire__table_args a)
{
    const int i = static_cast<int>(blockIdx.x) * TABLE_THREADS + static_cast<int>(threadIdx.x);
    if (i >= a.count)
        return;
    const quire__table_change change = a.changes[i];
    a.table[static_cast<int64_t>(change.row) * a.table_stride + change.column] = change.value;
}

} /* namespace qk */

extern "C" quire_status quire__cuda_table(const quire__table_args *args, void *stream)
{
    if (args->count < 0)
        return QUIRE_EINVAL;
    if (args->count == 0)
        return QUIRE_OK;
    if (!args->table || !args->changes || args->table_stride < 1 ||
        args->count > INT32_MAX - qk::TABLE_THREADS)
        return QUIRE_EINVAL;
    QK_LAUNCH(qk::table_kernel,
              dim3(static_cast<unsigned>((args->count + qk::TABLE_THREADS - 1) / qk::TABLE_THREADS)),
              dim3(qk::TABLE_THREADS), 0, stream, *args);
    return qk::launch_status();
}
