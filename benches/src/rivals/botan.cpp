// What Botan's C interface does not offer: products modulo a number that is prepared once.
#include <cstddef>
#include <cstdint>

#include <botan/bigint.h>
#include <botan/reducer.h>

struct Products {
    Botan::Modular_Reducer reducer;
    Botan::BigInt factor;
    Botan::BigInt product;
};

// Numbers are big-endian bytes. None of these lets an exception out: noexcept ends the process.
extern "C" {

Products* products_new(const uint8_t* modulus, size_t len) noexcept {
    return new Products{Botan::Modular_Reducer(Botan::BigInt(modulus, len)), Botan::BigInt(), Botan::BigInt()};
}

void products_free(Products* products) noexcept { delete products; }

void products_set_factor(Products* products, const uint8_t* factor, size_t len) noexcept {
    products->factor.binary_decode(factor, len);
}

void products_load(Products* products, const uint8_t* number, size_t len) noexcept {
    products->product.binary_decode(number, len);
}

void products_multiply(Products* products) noexcept {
    products->product = products->reducer.multiply(products->product, products->factor);
}

// Writes exactly len bytes.
void products_store(const Products* products, uint8_t* number, size_t len) noexcept {
    Botan::BigInt::encode_1363(number, len, products->product);
}
}
