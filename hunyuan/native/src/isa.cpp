// Which instruction set runs here.
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels.h"

namespace hy {
namespace {

bool runs_here(const Kernels *kernels) {
  if (!kernels) return false;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!std::strcmp(kernels->name, "avx512")) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
  }
  if (!std::strcmp(kernels->name, "avx2")) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
  }
#endif
  return true;
}

}  // namespace

const Kernels *best_kernels() {
  const char *asked = std::getenv("HUNYUAN_ISA");
  for (const Kernels *kernels : {avx512_kernels(), avx2_kernels(), generic_kernels()}) {
    if (!runs_here(kernels)) continue;
    if (!asked || !*asked || !std::strcmp(asked, kernels->name)) return kernels;
  }
  return nullptr;
}

}  // namespace hy

int32_t hy_abi_version(void) { return HY_ABI_VERSION; }

const char *hy_isa(void) {
  const hy::Kernels *kernels = hy::best_kernels();
  return kernels ? kernels->name : nullptr;
}
