//! The operations a user asks for, each of the layers below joined.
