#include "streams.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace rn50::streams {

namespace {

/// A place in a stream's work that others wait for.
class Mark {
  public:
    void reach() {
        const std::lock_guard<std::mutex> lock(mutex_);
        reached_ = true;
        changed_.notify_all();
    }
    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return reached_; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool reached_ = false;
};

using Nodes = std::set<size_t>;

struct Node {
    std::function<void()> work;
    Nodes after;
};

struct Capture {
    Stream* origin;
    std::thread::id thread;
    bool relaxed;
    Status status = success;
    std::vector<Node> nodes;
    std::set<Stream*> joined;  ///< the origin too
};

std::atomic<bool> threads_for_streams{false};
std::atomic<int> graphs{0};

/// Of captures, and of which stream and event takes part in which.
std::mutex capture_mutex;
thread_local std::vector<std::shared_ptr<Capture>> captures_of_thread;

std::mutex streams_mutex;
std::set<Stream*> all_streams;

}  // namespace

class Stream {
  public:
    explicit Stream(bool threaded) {
        if (threaded) thread_ = std::thread([this] { run(); });
    }
    ~Stream() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            closing_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable()) thread_.join();
    }

    void give(std::function<void()> work) {
        if (!thread_.joinable()) return work();
        const std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(std::move(work));
        changed_.notify_all();
    }
    bool idle() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return queue_.empty();
    }

    const int device = current_device();
    std::shared_ptr<Capture> capture;  ///< by capture_mutex
    Nodes last;                        ///< of the capture: what the next node comes after

  private:
    void run() {
        std::unique_lock<std::mutex> lock(mutex_);
        while (true) {
            changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
            if (queue_.empty()) return;
            {
                const std::function<void()> work = std::move(queue_.front());
                lock.unlock();
                work();
            }
            lock.lock();
            queue_.pop_front();  // until it is done, the stream is not idle
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> queue_;
    bool closing_ = false;
    std::thread thread_;
};

class Event {
  public:
    std::shared_ptr<Mark> mark;        ///< of what a stream does
    std::shared_ptr<Capture> capture;  ///< by capture_mutex: last recorded there
    Nodes after;
};

class Graph {
  public:
    explicit Graph(std::vector<Node> of) : nodes(std::move(of)) { ++graphs; }
    ~Graph() { --graphs; }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    /// `turn` 0: nodes as they were captured. 1: of those that may come next, the last. From 2 on: any of them.
    void run(unsigned turn) const {
        std::vector<Nodes> missing;
        std::vector<std::vector<size_t>> waiting(nodes.size());
        std::vector<size_t> ready;
        for (size_t i = 0; i < nodes.size(); ++i) {
            missing.push_back(nodes[i].after);
            for (const size_t before : nodes[i].after)
                waiting[before].push_back(i);
            if (nodes[i].after.empty()) ready.push_back(i);
        }
        while (!ready.empty()) {
            std::sort(ready.begin(), ready.end());
            const size_t at = turn == 0 ? 0 : turn == 1 ? ready.size() - 1 : turn * 7919 % ready.size();
            const size_t now = ready[at];
            ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(at));
            nodes[now].work();
            for (const size_t next : waiting[now]) {
                missing[next].erase(now);
                if (missing[next].empty()) ready.push_back(next);
            }
        }
    }

    const std::vector<Node> nodes;
};

namespace {

Status spoil(const std::shared_ptr<Capture>& capture, Status status) {
    if (capture->status == success) capture->status = capture_invalidated;
    return status;
}

/// Whether all of `wanted` is in `from`, or comes before something there.
bool reached(const Capture& capture, const Nodes& from, const Nodes& wanted) {
    Nodes seen = from;
    std::vector<size_t> next(from.begin(), from.end());
    while (!next.empty()) {
        const size_t node = next.back();
        next.pop_back();
        for (const size_t before : capture.nodes[node].after)
            if (seen.insert(before).second) next.push_back(before);
    }
    return std::includes(seen.begin(), seen.end(), wanted.begin(), wanted.end());
}

}  // namespace

void set_threaded(bool threaded) {
    threads_for_streams = threaded;
}

int& current_device() {
    thread_local int device = 0;
    return device;
}

Stream* make_stream() {
    auto* const stream = new Stream(threads_for_streams);
    const std::lock_guard<std::mutex> lock(streams_mutex);
    all_streams.insert(stream);
    return stream;
}

void destroy(Stream* stream) {
    {
        const std::lock_guard<std::mutex> lock(streams_mutex);
        all_streams.erase(stream);
    }
    delete stream;
}

int live_streams() {
    const std::lock_guard<std::mutex> lock(streams_mutex);
    return static_cast<int>(all_streams.size());
}

Status push(Stream* stream, std::function<void()> work) {
    if (stream == nullptr) {
        work();
        return success;
    }
    {
        const std::lock_guard<std::mutex> lock(capture_mutex);
        if (const std::shared_ptr<Capture>& capture = stream->capture) {
            if (capture->status != success) return capture_invalidated;
            capture->nodes.push_back({std::move(work), stream->last});
            stream->last = {capture->nodes.size() - 1};
            return success;
        }
    }
    stream->give(std::move(work));
    return success;
}

Status synchronize(Stream* stream) {
    if (stream == nullptr) return success;
    {
        const std::lock_guard<std::mutex> lock(capture_mutex);
        if (stream->capture) return spoil(stream->capture, capture_unsupported);
    }
    const auto mark = std::make_shared<Mark>();
    stream->give([mark] { mark->reach(); });
    mark->wait();
    return success;
}

Status query(Stream* stream) {
    if (stream == nullptr) return success;
    {
        const std::lock_guard<std::mutex> lock(capture_mutex);
        if (stream->capture) return spoil(stream->capture, capture_unsupported);
    }
    return stream->idle() ? success : not_ready;
}

void drain() {
    const auto busy = [] {
        const std::lock_guard<std::mutex> lock(streams_mutex);
        return std::any_of(all_streams.begin(), all_streams.end(),
                           [](Stream* stream) { return stream->device == current_device() && !stream->idle(); });
    };
    while (busy())
        std::this_thread::yield();
}

Event* make_event() {
    return new Event;
}

void destroy(Event* event) {
    delete event;
}

Status record(Event* event, Stream* stream) {
    {
        const std::lock_guard<std::mutex> lock(capture_mutex);
        event->capture = stream == nullptr ? nullptr : stream->capture;
        if (event->capture) {
            event->after = stream->last;
            return event->capture->status == success ? success : capture_invalidated;
        }
    }
    const auto mark = std::make_shared<Mark>();
    event->mark = mark;
    return push(stream, [mark] { mark->reach(); });
}

Status wait(Stream* stream, Event* event) {
    {
        const std::lock_guard<std::mutex> lock(capture_mutex);
        if (const std::shared_ptr<Capture>& capture = event->capture) {
            if (capture->joined.empty()) return captured_event;  // that capture has ended
            if (capture->status != success) return capture_invalidated;
            if (stream->capture && stream->capture != capture) {
                spoil(stream->capture, capture_merge);
                return spoil(capture, capture_merge);
            }
            stream->capture = capture;
            capture->joined.insert(stream);
            stream->last.insert(event->after.begin(), event->after.end());
            return success;
        }
        if (stream->capture) return spoil(stream->capture, capture_isolation);
    }
    if (const std::shared_ptr<Mark> mark = event->mark) return push(stream, [mark] { mark->wait(); });
    return success;
}

Status synchronize(Event* event) {
    {
        const std::lock_guard<std::mutex> lock(capture_mutex);
        if (event->capture) return spoil(event->capture, captured_event);
    }
    if (event->mark) event->mark->wait();
    return success;
}

Status begin_capture(Stream* stream, bool relaxed) {
    const std::lock_guard<std::mutex> lock(capture_mutex);
    if (stream == nullptr || stream->capture) return capture_unsupported;
    auto capture = std::make_shared<Capture>();
    capture->origin = stream;
    capture->thread = std::this_thread::get_id();
    capture->relaxed = relaxed;
    capture->joined = {stream};
    stream->last.clear();
    stream->capture = capture;
    captures_of_thread.push_back(capture);
    return success;
}

Status end_capture(Stream* stream, std::shared_ptr<const Graph>& graph) {
    graph = nullptr;
    const std::lock_guard<std::mutex> lock(capture_mutex);
    const std::shared_ptr<Capture> capture = stream->capture;
    if (!capture || capture->origin != stream) return capture_unmatched;
    if (!capture->relaxed && capture->thread != std::this_thread::get_id()) return capture_wrong_thread;
    Status status = capture->status;
    for (const Stream* const other : capture->joined)
        if (status == success && !reached(*capture, stream->last, other->last)) status = capture_unjoined;
    for (Stream* const joined : capture->joined) {
        joined->capture = nullptr;
        joined->last.clear();
    }
    capture->joined.clear();
    captures_of_thread.erase(std::remove(captures_of_thread.begin(), captures_of_thread.end(), capture),
                             captures_of_thread.end());
    if (status == success) graph = std::make_shared<const Graph>(std::move(capture->nodes));
    capture->nodes.clear();
    return status;
}

bool is_captured(Stream* stream) {
    const std::lock_guard<std::mutex> lock(capture_mutex);
    return stream != nullptr && stream->capture != nullptr;
}

Status unsafe_call() {
    const std::lock_guard<std::mutex> lock(capture_mutex);
    for (const std::shared_ptr<Capture>& capture : captures_of_thread)
        if (!capture->relaxed) return spoil(capture, capture_unsupported);
    return success;
}

Status launch(const std::shared_ptr<const Graph>& graph, Stream* stream) {
    static std::atomic<unsigned> launches{0};
    const unsigned turn = launches++ % 5;
    return push(stream, [graph, turn] { graph->run(turn); });
}

size_t nodes_of(const Graph& graph) {
    return graph.nodes.size();
}

int live_graphs() {
    return graphs;
}

}  // namespace rn50::streams
