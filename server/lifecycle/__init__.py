"""Lifecycle: generations rebuilt, verified, promoted and rolled back."""
