# SPDX-License-Identifier: Apache-2.0
"""The lab: a stock Debian kernel under QEMU's TCG with the build inside."""
