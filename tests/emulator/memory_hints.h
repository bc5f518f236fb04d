/*
 * memory_hints.h - loads and stores with a cache hint. A hint changes no value; here it changes nothing at all.
 *
 * One hint has a rule that the emulator cannot check: what is read with __ldg must not be written by the same kernel.
 */
#pragma once

template <class T> T __ldg(const T *address) {
    return *address;
}

template <class T> T __ldca(const T *address) {
    return *address;
}

template <class T> T __ldcg(const T *address) {
    return *address;
}

template <class T> T __ldcs(const T *address) {
    return *address;
}

template <class T> T __ldlu(const T *address) {
    return *address;
}

template <class T> T __ldcv(const T *address) {
    return *address;
}

template <class T> void __stwb(T *address, T value) {
    *address = value;
}

template <class T> void __stcg(T *address, T value) {
    *address = value;
}

template <class T> void __stcs(T *address, T value) {
    *address = value;
}

template <class T> void __stwt(T *address, T value) {
    *address = value;
}
