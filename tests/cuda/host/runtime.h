// The entry points that host_module.py calls.
#pragma once

#include "blocks.h"

namespace host {

// "f4", "i8", "u1", …: kind and bytes of an argument; "*" before it for pointers, "c" behind for what is only read.
template <typename T>
std::string code_of() {
    if constexpr (std::is_pointer_v<T>) {
        using To = std::remove_pointer_t<T>;
        return "*" + code_of<std::remove_const_t<To>>() + (std::is_const_v<To> ? "c" : "");
    } else {
        const char* kind = std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "i" : "u";
        return kind + std::to_string(sizeof(T));
    }
}

template <typename... A>
struct Entry {
    using Kernel = void (*)(A...);
    struct Call {
        Kernel kernel;
        void** values;
    };

    template <size_t... I>
    static void unpack(Kernel kernel, void** values, std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_const_t<A>*>(values[I])...);
    }

    static void body(void* call) {
        Call& c = *static_cast<Call*>(call);
        unpack(c.kernel, c.values, std::index_sequence_for<A...>{});
    }

    static std::string signature() {
        std::string all;
        ((all += code_of<A>() + " "), ...);
        return all;
    }
};

template <typename... A>
const char* launch(
    void (*kernel)(A...), void** values, const unsigned* grid, const unsigned* block, int order, uint64_t seed) {
    typename Entry<A...>::Call call{kernel, values};
    scheduler.run(Entry<A...>::body, &call, grid, block, order, seed);
    return scheduler.error.c_str();
}

template <typename... A>
const char* signature(void (*)(A...)) {
    static const std::string text = Entry<A...>::signature();
    return text.c_str();
}

}  // namespace host

#define ENTRY(name)                                                                                                \
    extern "C" const char* launch_##name(                                                                          \
        void** values, const unsigned* grid, const unsigned* block, int order, uint64_t seed) {                    \
        return host::launch(name, values, grid, block, order, seed);                                               \
    }                                                                                                              \
    extern "C" const char* signature_##name() { return host::signature(name); }
