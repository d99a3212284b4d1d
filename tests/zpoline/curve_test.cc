// Thousands of P-256 keys lie on their curve: libcrypto's tables are as its file has them.
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>

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

}  // namespace
