<?php

namespace App\Resources;

use App\Models\Invoice;

class InvoiceResource extends Resource
{
    public static string $model = Invoice::class;
}
