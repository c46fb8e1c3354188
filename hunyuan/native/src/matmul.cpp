// One matrix product on its own, as the decoder computes it: for tests and measurements.
#include <exception>

#include "matrix.h"
#include "team.h"

using namespace hy;

int32_t hy_matmul(int32_t type, int64_t rows, int64_t columns, const void *packed, const float *x,
                  int32_t tokens, float *y, int32_t threads) {
  try {
    const int index = format_index(type);
    const Kernels *kernels = best_kernels();
    if (!kernels) return -1;
    const Matrix m = {index, rows, columns, static_cast<const uint8_t *>(packed),
                      block_bytes(kFormats[index], columns)};
    Inputs in;
    in.serve(m);
    in.resize(tiles_of(tokens));
    Team team(threads);
    std::vector<std::vector<WideGroup>> wide(team.size());
    for (auto &scratch : wide) scratch.resize(tokens > kTile ? columns / kGroup : 0);
    team.run([&](int thread) {
      team.share(tiles_of(tokens), [&](int64_t tile) {
        for (int64_t t = tile * kTile; t < std::min<int64_t>(tokens, (tile + 1) * kTile); t++)
          in.put_row(kernels, t, x + t * columns);
      });
      team.share((m.blocks() + kWide - 1) / kWide, [&](int64_t item) {
        const int64_t first = item * kWide;
        multiply(kernels, m, first, std::min(first + kWide, m.blocks()), in, 0, tokens,
                 wide[thread].data(), [&](int64_t block, int64_t t, int n, const float *values) {
                   for (int i = 0; i < n; i++)
                     std::memcpy(y + (t + i) * rows + block * kRows, values + i * kRows,
                                 m.rows_at(block) * sizeof(float));
                 });
      });
    });
    return 0;
  } catch (const std::exception &) {
    return -1;
  }
}
