//! Turns answers into bytes: tables for people, JSON for programs.
