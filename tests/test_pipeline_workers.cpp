// How many threads load where nobody says it. Apart from the loader's other tests, whose HostMemory is another one.
#include <algorithm>

#include "base/machine.h"
#include "pipeline/loader.h"
#include "pipeline_support.h"

using namespace rn50;

TEST_CASE("pipeline: as many workers as the process may use cores, whatever limits them") {
    const test::TempFolder folder;
    for (int i = 0; i < 8; ++i)
        folder.write_picture(cat("a/", i, ".ppm"), i);
    const auto source = make_folder_source(folder.path());
    LoaderOptions options;
    options.batch_size = 2;
    options.pictures.image_size = 6;
    test::HostMemory memory;
    CHECK(Loader(*source, options, memory).workers() == std::min(32, cores_of_process().usable()));
}
