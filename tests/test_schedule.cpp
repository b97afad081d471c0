// The learning rate against PyTorch 2.15: torch.optim.lr_scheduler.LambdaLR with the lambda of train/schedule.h, and
// SequentialLR([LinearLR(1 / W, 1, W - 1), CosineAnnealingLR(T - W)], [W]), which gives the same values.
#include <doctest/doctest.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "train/schedule.h"

using rn50::Schedule;

TEST_CASE("schedule: every step of a short run is PyTorch's") {
    const std::vector<double> golden{2e-05,
                                     4e-05,
                                     6e-05,
                                     8e-05,
                                     0.0001,
                                     0.0001,
                                     9.890738003669029e-05,
                                     9.567727288213005e-05,
                                     9.045084971874738e-05,
                                     8.345653031794292e-05,
                                     7.500000000000001e-05,
                                     6.545084971874738e-05,
                                     5.522642316338268e-05,
                                     4.477357683661734e-05,
                                     3.4549150281252636e-05,
                                     2.500000000000001e-05,
                                     1.6543469682057106e-05,
                                     9.549150281252633e-06,
                                     4.322727117869951e-06,
                                     1.0926199633097157e-06};
    const Schedule schedule{1e-4, 5, 20};
    for (size_t step = 0; step < golden.size(); ++step)
        CHECK(schedule.at(static_cast<int64_t>(step)) == doctest::Approx(golden[step]).epsilon(1e-12));
}

TEST_CASE("schedule: the joints of a long run are PyTorch's") {
    const std::vector<std::pair<int64_t, double>> golden{{0, 0.0002},
                                                         {1, 0.0004},
                                                         {498, 0.0998},
                                                         {499, 0.1},
                                                         {500, 0.1},
                                                         {501, 0.09999998781530371},
                                                         {2749, 0.05003490658220438},
                                                         {2750, 0.05},
                                                         {4998, 4.873877924582715e-08},
                                                         {4999, 1.2184696296380083e-08}};
    const Schedule schedule{0.1, 500, 5000};
    for (const auto& [step, lr] : golden)
        CHECK(schedule.at(step) == doctest::Approx(lr).epsilon(1e-8));
}

TEST_CASE("schedule: without a warm-up, and with nothing but one") {
    const Schedule cosine{1e-3, 0, 4};
    const double golden[] = {0.001, 0.0008535533905932737, 0.0005, 0.00014644660940672628};
    for (int64_t step = 0; step < 4; ++step)
        CHECK(cosine.at(step) == doctest::Approx(golden[step]).epsilon(1e-12));
    CHECK(cosine.at(4) == 0);
    CHECK(cosine.at(1000) == 0);

    const Schedule warm{1, 3, 3};
    CHECK(warm.at(2) == 1);
    CHECK(warm.at(3) == 0);
    const Schedule cut{1, 10, 4};  // a warm-up longer than the run
    CHECK(cut.at(3) == doctest::Approx(0.4));
    CHECK(cut.at(4) == 0);
}
