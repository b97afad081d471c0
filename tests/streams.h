// Streams, events and captured graphs of a make-believe GPU in host memory, by the rules of CUDA's runtime (CUDA C++
// Programming Guide, "CUDA Graphs"; runtime API, "Stream Management"). The emulator (simt.h) and the make-believe
// libraries (cuda_libraries/) both stand on them.
//
// While a stream is captured, what it is given is noted and not done: a launch with its arguments by value, a copy with
// its addresses. A launch of the graph does all of it, in an order that the captured dependencies allow and that
// changes from launch to launch, so that a dependency which is missing shows. What CUDA forbids within a capture is
// refused with CUDA's own error, and the capture is of no more use.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace rn50::streams {

/// Of cudaError_t.
enum Status : int {
    success = 0,
    not_ready = 600,
    capture_unsupported = 900,
    capture_invalidated = 901,
    capture_merge = 902,
    capture_unmatched = 903,
    capture_unjoined = 904,
    capture_isolation = 905,
    captured_event = 907,
    capture_wrong_thread = 908,
};

class Stream;
class Event;
class Graph;  ///< shared by a graph and what was instantiated from it: neither changes

/// How streams that are made from now on do what they are given: within the call, or each in a thread of its own.
void set_threaded(bool threaded);
/// The GPU of this thread; streams belong to it.
int& current_device();

Stream* make_stream();
/// After all that it was given.
void destroy(Stream* stream);
/// All streams, of all GPUs.
int live_streams();
/// Null: no stream, and the work is done at once.
Status push(Stream* stream, std::function<void()> work);
Status synchronize(Stream* stream);
Status query(Stream* stream);
/// Until all streams of this thread's GPU are idle.
void drain();

Event* make_event();
void destroy(Event* event);
Status record(Event* event, Stream* stream);
Status wait(Stream* stream, Event* event);
Status synchronize(Event* event);

/// `relaxed`: calls that may wait for the device (see unsafe_call) are allowed to the capturing thread.
Status begin_capture(Stream* stream, bool relaxed);
/// Null where the capture came to nothing.
Status end_capture(Stream* stream, std::shared_ptr<const Graph>& graph);
bool is_captured(Stream* stream);
/// What a call returns that takes or gives back memory, or waits for the whole device.
Status unsafe_call();
Status launch(const std::shared_ptr<const Graph>& graph, Stream* stream);
/// What was captured; nodes of a graph.
size_t nodes_of(const Graph& graph);
/// Graphs that anybody still holds.
int live_graphs();

}  // namespace rn50::streams
