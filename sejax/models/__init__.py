"""Model families: parameter trees and pure functions over them."""
