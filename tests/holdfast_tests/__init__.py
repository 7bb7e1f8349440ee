# SPDX-License-Identifier: Apache-2.0
"""The test runner behind `make test`: lanes, counting, the closing line."""
