// Runs work in several threads.
#pragma once

#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace muvera {

// Calls work(part) for parts 0 to n - 1, each in a thread of its own, of which this is one. If the system gives no more
// threads, this one does the remaining parts. Rethrows an error of any part when all have ended.
template <class Work> void in_threads(size_t n, const Work &work) {
    std::exception_ptr error;
    std::mutex error_lock;
    const auto guarded = [&](size_t part) {
        try {
            work(part);
        } catch (...) {  // no memory
            const std::lock_guard<std::mutex> hold(error_lock);
            error = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(n);
    size_t part = 1;
    try {
        for (; part < n; ++part) others.emplace_back([&guarded, part] { guarded(part); });
    } catch (const std::system_error &) {
    }
    guarded(0);
    for (; part < n; ++part) guarded(part);
    for (std::thread &other : others) other.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace muvera
