<?php

namespace App\Resources;

use App\Models\Payment;

class PaymentResource extends Resource
{
    public static string $model = Payment::class;
}
