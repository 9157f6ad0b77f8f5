"""The owner's desk. Each part of it is a module."""

from generation import admin_presets, admin_runs, admin_users

__all__ = ["admin_presets", "admin_runs", "admin_users"]
