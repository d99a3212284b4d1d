// Thousands of P-256 keys lie on their curve and hundreds of TLS handshakes succeed: libcrypto's tables are as its file has them.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <string>

namespace {

TEST(Curve, FiveThousandKeysAreValid) {
  EC_GROUP* group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
  ASSERT_NE(group, nullptr);
  int valid = 0;
  for (int i = 0; i < 5000; i++) {
    EC_KEY* key = EC_KEY_new();
    ASSERT_EQ(EC_KEY_set_group(key, group), 1);
    ASSERT_EQ(EC_KEY_generate_key(key), 1);
    valid += EC_POINT_is_on_curve(group, EC_KEY_get0_public_key(key), nullptr) == 1 ? 1 : 0;
    EC_KEY_free(key);
  }
  EC_GROUP_free(group);
  EXPECT_EQ(valid, 5000);
}

class Handshakes : public ::testing::Test {
 protected:
  void SetUp() override {
    key_ = EVP_EC_gen("P-256");
    certificate_ = X509_new();
    X509_set_version(certificate_, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate_), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate_), 3600);
    X509_set_pubkey(certificate_, key_);
    X509_NAME* name = X509_get_subject_name(certificate_);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
    X509_set_issuer_name(certificate_, name);
    ASSERT_GT(X509_sign(certificate_, key_, EVP_sha256()), 0);
    server_ = SSL_CTX_new(TLS_server_method());
    client_ = SSL_CTX_new(TLS_client_method());
    ASSERT_EQ(SSL_CTX_use_certificate(server_, certificate_), 1);
    ASSERT_EQ(SSL_CTX_use_PrivateKey(server_, key_), 1);
    SSL_CTX_set_verify(client_, SSL_VERIFY_PEER, nullptr);
    ASSERT_EQ(X509_STORE_add_cert(SSL_CTX_get_cert_store(client_), certificate_), 1);
  }
  void TearDown() override {
    SSL_CTX_free(client_);
    SSL_CTX_free(server_);
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  // One handshake and one message through memory; true if both ends agree.
  bool shake(int version) {
    SSL* server = SSL_new(server_);
    SSL* client = SSL_new(client_);
    SSL_set_max_proto_version(client, version);
    BIO* there = nullptr;
    BIO* here = nullptr;
    BIO_new_bio_pair(&there, 0, &here, 0);
    SSL_set_bio(server, there, there);
    SSL_set_bio(client, here, here);
    SSL_set_accept_state(server);
    SSL_set_connect_state(client);
    for (int step = 0; step < 20 && !(SSL_is_init_finished(client) && SSL_is_init_finished(server)); step++) {
      (void)SSL_do_handshake(client);
      (void)SSL_do_handshake(server);
    }
    char message[6] = "";
    const bool good = SSL_write(client, "hello", 5) == 5 && SSL_read(server, message, 5) == 5 && std::string(message) == "hello" &&
                      SSL_get_verify_result(client) == X509_V_OK;
    SSL_free(client);
    SSL_free(server);
    return good;
  }
  EVP_PKEY* key_ = nullptr;
  X509* certificate_ = nullptr;
  SSL_CTX* server_ = nullptr;
  SSL_CTX* client_ = nullptr;
};

TEST_F(Handshakes, ThreeHundredSucceed) {
  int good = 0;
  for (int i = 0; i < 300; i++) good += shake(i % 2 == 0 ? TLS1_3_VERSION : TLS1_2_VERSION) ? 1 : 0;
  EXPECT_EQ(good, 300);
}

}  // namespace
