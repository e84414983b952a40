//! The gRPC contract: generated messages, services and conversions.
