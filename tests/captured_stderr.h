// What a test makes the program say.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <string>

namespace rn50::test {

/// What is written to stderr during its life.
class CapturedStderr {
  public:
    CapturedStderr() : file_(std::tmpfile()), kept_(dup(STDERR_FILENO)) {
        std::fflush(stderr);
        dup2(fileno(file_), STDERR_FILENO);
    }
    ~CapturedStderr() {
        std::fflush(stderr);
        dup2(kept_, STDERR_FILENO);
        close(kept_);
        std::fclose(file_);
    }
    std::string text() {
        std::fflush(stderr);
        std::rewind(file_);
        std::string all;
        for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_))
            all += static_cast<char>(c);
        return all;
    }

  private:
    std::FILE* file_;
    int kept_;
};

}  // namespace rn50::test
