#include <omp.h>

#include <cstdio>

int main() {
    int threads = 0;
#pragma omp parallel reduction(+ : threads)
    threads += 1;
    std::printf("%d, %d threads\n", _OPENMP, threads);
    return threads == omp_get_max_threads() ? 0 : 1;
}
