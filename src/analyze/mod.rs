//! Derives answers from what was read: values in, values out.
